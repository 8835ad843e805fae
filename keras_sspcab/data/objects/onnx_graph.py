"""The input and the outputs of a detection model."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sspcab.checks import standardize_choice, standardize_int
from keras_sspcab.data.objects.boxes import opencv

if TYPE_CHECKING:
    from keras_sspcab.data.objects.onnx_detector import OnnxDetector

# Gray of the margins, as YOLO is trained with.
_MARGIN = 114
# Sizes of inputs that a model leaves open are multiples of it.
_STRIDE = 32

_TYPES = {
    "tensor(uint8)": "uint8",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}

#: Corners `(n, 4)`, x and y of both in pixels of the input, ends exclusive,
#: confidences `(n,)`, and classes `(n,)` as the model counts them.
Detections = tuple[np.ndarray, np.ndarray, np.ndarray]


def _refusal(rule: str, path: str, nodes: Sequence[Any]) -> ValueError:
    given = ", ".join(f"{n.name}: {n.type} {n.shape}" for n in nodes)
    return ValueError(f"{rule} Received: {path!r} with {given}")


class ImageInput:
    """The input of a detection model; see `OnnxDetector` for the options."""

    def __init__(self, session: Any, options: "OnnxDetector") -> None:
        path, layout, nodes = options.path, options.layout, session.get_inputs()
        if layout is not None:
            layout = standardize_choice(layout, ("nchw", "nhwc"), "layout")
        resize = standardize_choice(
            options.resize, ("letterbox", "stretch"), "resize"
        )
        self._keeps_aspect = resize == "letterbox"
        colors = standardize_choice(options.colors, ("rgb", "bgr"), "colors")
        self._is_bgr = colors == "bgr"
        self._options = options
        node = nodes[0]
        shape = [size if isinstance(size, int) else None for size in node.shape]
        if (
            len(nodes) != 1
            or node.type not in _TYPES
            or len(shape) not in (3, 4)
        ):
            raise _refusal(
                "The only input of a detector must be an image, uint8 or "
                "float, (1, 3, height, width) or (1, height, width, 3), maybe "
                "without the first axis.",
                path,
                nodes,
            )
        self.name = node.name
        self._dtype = _TYPES[node.type]
        self._has_batch = len(shape) == 4
        if self._has_batch and shape[0] not in (1, None):
            rule = "A detector must take one image at a time: export it so."
            raise _refusal(rule, path, nodes)
        first, middle, last = shape[-3:]
        if layout is None and (first == 3) == (last == 3):
            raise _refusal(
                "The input must tell which axis is that of the colors, or else "
                'state layout="nchw" or layout="nhwc".',
                path,
                nodes,
            )
        self._channels_first = (
            first == 3 if layout is None else layout == "nchw"
        )
        if (first if self._channels_first else last) not in (3, None):
            raise _refusal("A detector must take color images.", path, nodes)
        own = (middle, last) if self._channels_first else (first, middle)
        self.size: tuple[int | None, int | None] = options.input_size or own
        pairs = zip(own, self.size, strict=True)
        if any(fixed not in (None, wanted) for fixed, wanted in pairs):
            raise ValueError(
                f"The input of {path!r} has a size of its own, {own}. "
                f"Received: input_size={options.input_size!r}"
            )

    def fit(
        self, frame: np.ndarray
    ) -> tuple[np.ndarray, tuple[int, int], np.ndarray, np.ndarray]:
        """Brings a frame, uint8 `(height, width, 3)`, to the input's form.

        Returns the input, its height and width, and what takes x and y of
        corners `(4,)` from the frame to the input: a scale, then an offset.
        """
        own = frame.shape[:2]
        # A side that the model leaves open becomes a multiple of the stride.
        stride = _STRIDE if self._keeps_aspect else 1
        height, width = (
            side or -(-of_frame // stride) * stride
            for side, of_frame in zip(self.size, own, strict=True)
        )
        inner = width, height
        if self._keeps_aspect:
            scale = min(height / own[0], width / own[1])
            if None in self.size:
                # A free axis has room for the frame as it is.
                scale = min(1.0, scale)
            inner = (
                max(1, min(width, round(own[1] * scale))),
                max(1, min(height, round(own[0] * scale))),
            )
        left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
        if inner != own[::-1]:
            frame = opencv().resize(frame, inner)
        pixels = np.full((height, width, 3), _MARGIN, "uint8")
        pixels[top : top + inner[1], left : left + inner[0]] = frame
        scales = np.tile((inner[0] / own[1], inner[1] / own[0]), 2)
        offsets = np.tile((float(left), float(top)), 2)
        return self._to_tensor(pixels), (height, width), scales, offsets

    def _to_tensor(self, pixels: np.ndarray) -> np.ndarray:
        options = self._options
        values = pixels[..., ::-1] if self._is_bgr else pixels
        if self._dtype != "uint8":
            scale = 1 / 255 if options.scale is None else options.scale
            values = values.astype("float32") * np.float32(scale)
            if options.mean is not None:
                values -= np.array(options.mean, "float32")
            if options.std is not None:
                values /= np.array(options.std, "float32")
        if self._channels_first:
            values = values.transpose(2, 0, 1)
        if self._has_batch:
            values = values[np.newaxis]
        return np.ascontiguousarray(values, self._dtype)


class DetectionOutput:
    """The outputs of a detection model; see `OnnxDetector` for the options.

    `is_separate` says whether boxes, scores and classes are on their own.
    """

    def __init__(self, session: Any, options: "OnnxDetector") -> None:
        path, normalized = options.path, options.normalized
        form = standardize_choice(
            options.output, ("auto", "separate", "rows", "columns"), "output"
        )
        box_form = options.box_form
        if box_form is not None:
            forms = ("xyxy", "yxyx", "xywh", "cxcywh")
            box_form = standardize_choice(box_form, forms, "box_form")
        if options.num_classes is not None:
            standardize_int(options.num_classes, "num_classes", 1)
        self._options = options
        nodes = session.get_outputs()
        if form == "auto" and len(nodes) > 1:
            form = "separate"
        self._form = form
        self.is_separate = form == "separate"
        default = "cxcywh"
        if self.is_separate:
            self._roles = _assign_roles(nodes, path)
            # TensorFlow's object detection names its outputs so.
            boxes = self._roles["boxes"].split(":")[0]
            is_tensorflow = boxes.endswith("detection_boxes")
            default = "yxyx" if is_tensorflow else "xyxy"
            normalized = is_tensorflow if normalized is None else normalized
        else:
            # Scalars have no axes.
            shape = nodes[0].shape or [None]
            is_batch = isinstance(shape[0], int) and shape[0] != 1
            if len(shape) != 3 or is_batch:
                rule = (
                    "One output must be of shape (1, n, 4 + 1 + classes) or "
                    "(1, 4 + classes, n)."
                )
                raise _refusal(rule, path, nodes)
        self._box_form = box_form or default
        self._normalized = bool(normalized)

    def read(
        self, values: dict[str, np.ndarray], input_size: tuple[int, int]
    ) -> Detections:
        """Returns what a model detected, from its outputs in their order."""
        if self.is_separate:
            boxes, confidences, classes = self._read_separate(values)
        else:
            first = next(iter(values.values()))
            boxes, confidences, classes = self._read_single(first)
        boxes = boxes.astype("float64")
        if self._box_form == "yxyx":
            boxes = boxes[:, [1, 0, 3, 2]]
        if self._normalized:
            boxes = boxes * np.tile(input_size[::-1], 2)
        if self._box_form in ("xywh", "cxcywh"):
            start, size = boxes[:, :2], boxes[:, 2:]
            if self._box_form == "cxcywh":
                start = start - size / 2
            boxes = np.concatenate([start, start + size], axis=1)
        return boxes, confidences.astype("float64"), classes.astype("int64")

    def _read_separate(self, values: dict[str, np.ndarray]) -> Detections:
        given = {
            role: values[name].reshape(-1) for role, name in self._roles.items()
        }
        scores = given["scores"]
        count = len(scores)
        classes = given.get("classes", np.zeros(count, "int64"))
        if "number" in given:
            count = min(count, int(given["number"][0]))
        boxes = given["boxes"].reshape(-1, 4)
        return boxes[:count], scores[:count], classes[:count]

    def _read_single(self, output: np.ndarray) -> Detections:
        table, form, options = output[0], self._form, self._options
        received = f"Received: shape {output.shape} from {options.path!r}"
        if form == "auto":
            if table.shape[0] == table.shape[1]:
                raise ValueError(
                    "The output must tell boxes from numbers of a box. "
                    f'{received}. State output="rows" or output="columns".'
                )
            # There are more boxes than numbers to each.
            form = "rows" if table.shape[0] > table.shape[1] else "columns"
        if form == "columns":
            table = table.T
        if table.shape[1] < 5:
            raise ValueError(
                "A box must have 4 numbers, then confidences. "
                f"{received}, read as {form}"
            )
        boxes, scores = table[:, :4], table[:, 4:]
        has_objectness = options.objectness
        if has_objectness is None:
            has_objectness = form == "rows"
        if has_objectness:
            objectness, scores = scores[:, 0], scores[:, 1:]
            if scores.shape[1] == 0:
                return boxes, objectness, np.zeros(len(boxes), "int64")
            scores = scores * objectness[:, np.newaxis]
        scores = scores[:, : options.num_classes]
        classes = scores.argmax(axis=1)
        return boxes, scores[np.arange(len(scores)), classes], classes


def _is_float(node: Any) -> bool:
    return node.type in ("tensor(float)", "tensor(float16)", "tensor(double)")


def _is_list(node: Any) -> bool:
    return len(node.shape) in (1, 2)


def _is_table(node: Any) -> bool:
    """Whether rows may have four numbers; an axis of any length has a name."""
    is_open = bool(node.shape) and not isinstance(node.shape[-1], int)
    is_table = _is_float(node) and len(node.shape) in (2, 3)
    return is_table and (is_open or node.shape[-1] == 4)


# By role: words in names, what they count for, and what needs no name.
_Test = Callable[[Any], bool]
_ROLES: dict[str, tuple[tuple[str, ...], _Test, _Test]] = {
    "number": (("num",), _is_list, lambda node: False),
    "boxes": (
        ("box",),
        _is_table,
        lambda node: _is_table(node) and node.shape[-1] == 4,
    ),
    "classes": (
        ("label", "class"),
        _is_list,
        lambda node: _is_list(node) and not _is_float(node),
    ),
    "scores": (
        ("score", "conf"),
        lambda node: _is_list(node) and _is_float(node),
        lambda node: _is_list(node) and _is_float(node),
    ),
}


def _assign_roles(nodes: Sequence[Any], path: str) -> dict[str, str]:
    """Tells which output is boxes, scores, and maybe classes and number."""
    left = list(nodes)
    roles: dict[str, str] = {}
    for role, (words, fits, is_clear) in _ROLES.items():
        candidates = [
            node
            for node in left
            if fits(node) and any(word in node.name.lower() for word in words)
        ]
        candidates += filter(is_clear, left)
        if candidates:
            roles[role] = candidates[0].name
            left.remove(candidates[0])
    if not {"boxes", "scores"} <= roles.keys():
        raise _refusal(
            "Separate outputs must be boxes (n, 4), scores (n,) and maybe "
            "labels (n,), with or without a batch axis; or else state "
            'output="rows" or output="columns" to read the first one alone.',
            path,
            nodes,
        )
    return roles
