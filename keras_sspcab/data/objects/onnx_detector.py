"""Detection models in ONNX files."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_sspcab.data.objects.boxes import (
    BoxFilter,
    box_areas,
    clip_boxes,
    opencv,
)
from keras_sspcab.data.objects.proposals import ObjectProposals, named_fields
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.reading import iterate_frames
from keras_sspcab.imports import import_optional

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")

# Of how inputs and outputs are understood, for the names of files of objects.
_VERSION = 3

# Intersection over union from which on a box of a single output counts twice.
_MAX_OVERLAP = 0.45

# The largest confidence; quantized ones may end a little above 1.
_SUREST = 1.01

# Shares of the input's size stay below it, though boxes may end beyond 1.
_LARGEST_SHARE = 2.0

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

# Outputs by role, and words in their names.
_ROLES = {
    "number": ("num",),
    "boxes": ("box",),
    "classes": ("label", "class"),
    "scores": ("score", "conf"),
}

# Corners `(n, 4)`, x and y of both in pixels of the input, ends exclusive,
# confidences `(n,)`, and classes `(n,)` as the model counts them.
_Detections = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(eq=False)
class OnnxDetector(ObjectProposals):
    """Finds objects with a detection model that is given as an ONNX file.

    Confidences are from 0 to 1. Two forms of outputs are read:

    - separate ones: boxes `(n, 4)`, scores `(n,)` and maybe labels `(n,)`, as
      torchvision and most exporters write them (corners in pixels, x first), or
      TensorFlow (`detection_boxes`: y first, in units of the input's size);
      duplicates left out;
    - a single one, as YOLO exporters write it (centers and sizes in pixels):
      rows `(1, n, 4 + 1 + classes)`, with a confidence of there being an object
      before those of the classes, or columns `(1, 4 + classes, n)`. Duplicates,
      which overlap by more than 0.45, are left out here. Rows `(1, n, 6)` may
      also be final boxes, duplicates left out: both corners in pixels,
      confidence and number of the class. They are known by their values.

    Size, layout and type of the input are those of the graph. Frames are RGB,
    fitted into the input with gray margins; floats lie in [0, 1]. A model that
    needs something else is exported with that as its first and last layers. It
    needs `pip install "keras-sspcab[export,video]"`.

    Args:
        path: The model.
        min_confidence: Boxes of this confidence or less are left out.
            Defaults to 0.5.
        min_area: Boxes of fewer pixels are left out. Defaults to 100.
        cover_threshold: Share of a box's area above which it is left out if a
            larger box covers it. Defaults to 0.6; None keeps all.
        classes: Numbers of the classes to keep, as the model counts them; None
            (the default) keeps all.

    Example:
    >>> detector = OnnxDetector("yolov8n.onnx")  # doctest: +SKIP
    >>> detector.detect(np.zeros((480, 640, 3), "uint8"))  # doctest: +SKIP
    array([], shape=(0, 5), dtype=float64)
    """

    path: Any
    min_confidence: float = 0.5
    min_area: float = 100
    cover_threshold: float | None = 0.6
    classes: Iterable[int] | None = None

    name = "onnx"

    def __post_init__(self) -> None:
        self.path = os.path.expanduser(os.fspath(self.path))
        if self.classes is not None:
            self.classes = sorted({int(number) for number in self.classes})
        self._filter = BoxFilter(
            self.min_confidence, self.min_area, self.cover_threshold
        )
        self._session = _open(self.path)
        self._input = _Input(self._session, self.path)
        self._output = _Output(self._session, self.path)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments; the file counts by itself."""
        fields = named_fields(self, without=("path",))
        return {"version": _VERSION, "opencv": opencv().__version__, **fields}

    def files(self, video: Video) -> list[str]:
        """Returns the path of the model."""
        return [self.path]

    def boxes(self, video: Video) -> Iterator[np.ndarray]:
        """Yields the boxes in each frame of a video."""
        for position, frame in enumerate(iterate_frames(video)):
            try:
                boxes = self.detect(frame)
            except ValueError as error:
                raise ValueError(
                    f"{error} (frame {position} of {video.path!r})"
                ) from error
            yield boxes

    def detect(self, frame: np.ndarray) -> np.ndarray:
        """Returns the boxes `(n, 5)` in an RGB frame, surest first."""
        tensor, size, scales, offsets = self._input.fit(frame)
        names = [output.name for output in self._session.get_outputs()]
        values = self._session.run(names, {self._input.name: tensor})
        outputs = dict(zip(names, values, strict=True))
        (corners, confidences, classes), is_final = self._output.read(
            outputs, size, self.min_confidence
        )
        is_kept = confidences > self.min_confidence
        if self.classes is not None:
            is_kept &= np.isin(classes, list(self.classes))
        keep = np.flatnonzero(is_kept)
        keep = keep[np.argsort(-confidences[keep], kind="stable")]
        corners = (corners[keep] - offsets) / scales
        boxes = np.column_stack([corners, confidences[keep]])
        if not np.isfinite(boxes).all():
            raise ValueError(
                f"A detector must give finite boxes. Received: {self.path!r}"
            )
        if not is_final:
            boxes = _suppress(boxes, classes[keep])
        # Corners are between pixels: a box ends before the second one.
        boxes[:, 2:4] -= 1
        boxes = clip_boxes(boxes, frame.shape)
        # Beside the frame, as in the borders of what the network sees.
        return self._filter(boxes[box_areas(boxes) > 0])


def _suppress(boxes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns the boxes that non-maximum suppression leaves of each class."""
    kept = opencv().dnn.NMSBoxesBatched(
        np.column_stack([boxes[:, :2], boxes[:, 2:4] - boxes[:, :2]]).tolist(),
        boxes[:, 4].tolist(),
        classes.tolist(),
        0.0,
        _MAX_OVERLAP,
    )
    return boxes[np.sort(np.asarray(kept, "int64").reshape(-1))]


def _open(path: str) -> Any:
    runtime = import_optional(
        "onnxruntime", "Running a detector needs onnxruntime", "export"
    )
    if not os.path.isfile(path):
        raise ValueError(
            f"The detector does not exist. Received: path={path!r}"
        )
    available = runtime.get_available_providers()
    providers = [name for name in _PROVIDERS if name in available]
    try:
        return runtime.InferenceSession(path, providers=providers)
    except Exception as error:
        # onnxruntime has errors of its own, without a common base.
        raise ValueError(
            f"The detector {path!r} cannot be loaded: {error}"
        ) from error


# === Inputs and outputs ===


def _refusal(rule: str, path: str, nodes: Sequence[Any]) -> ValueError:
    given = ", ".join(f"{n.name}: {n.type} {n.shape}" for n in nodes)
    return ValueError(f"{rule} Received: {path!r} with {given}")


class _Input:
    """The input of a detection model."""

    def __init__(self, session: Any, path: str) -> None:
        nodes = session.get_inputs()
        node = nodes[0]
        shape = [size if isinstance(size, int) else None for size in node.shape]
        if (
            len(nodes) != 1
            or node.type not in _TYPES
            or len(shape) not in (3, 4)
            or shape[:-3] not in ([], [1], [None])
            or (shape[-3] == 3) == (shape[-1] == 3)
        ):
            raise _refusal(
                "The only input of a detector must be one color image, uint8 "
                "or float, (1, 3, height, width) or (1, height, width, 3), "
                "maybe without the first axis. Export it so.",
                path,
                nodes,
            )
        self.name = node.name
        self._dtype = _TYPES[node.type]
        self._has_batch = len(shape) == 4
        self._channels_first = shape[-3] == 3
        self.size = shape[-2:] if self._channels_first else shape[-3:-1]

    def fit(
        self, frame: np.ndarray
    ) -> tuple[np.ndarray, tuple[int, int], np.ndarray, np.ndarray]:
        """Brings a frame, uint8 `(height, width, 3)`, to the input's form.

        Returns the input, its height and width, and what takes x and y of
        corners `(4,)` from the frame to the input: a scale, then an offset.
        """
        own = frame.shape[:2]
        # A side that the model leaves open becomes a multiple of the stride.
        height, width = (
            side or -(-of_frame // _STRIDE) * _STRIDE
            for side, of_frame in zip(self.size, own, strict=True)
        )
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

    def _to_tensor(self, values: np.ndarray) -> np.ndarray:
        if self._dtype != "uint8":
            values = values.astype("float32") * np.float32(1 / 255)
        if self._channels_first:
            values = values.transpose(2, 0, 1)
        if self._has_batch:
            values = values[np.newaxis]
        return np.ascontiguousarray(values, self._dtype)


class _Output:
    """The outputs of a detection model.

    `is_separate` says whether boxes, scores and classes are on their own.
    """

    def __init__(self, session: Any, path: str) -> None:
        nodes = session.get_outputs()
        self._path = path
        self.is_separate = len(nodes) > 1
        self._is_tensorflow = False
        if self.is_separate:
            self._roles = _assign_roles(nodes, path)
            boxes = self._roles["boxes"].split(":")[0]
            self._is_tensorflow = boxes.endswith("detection_boxes")
            return
        # Scalars have no axes.
        shape = nodes[0].shape or [None]
        is_batch = isinstance(shape[0], int) and shape[0] != 1
        if len(shape) != 3 or is_batch:
            raise _refusal(
                "One output must be of shape (1, n, 4 + 1 + classes) or "
                "(1, 4 + classes, n).",
                path,
                nodes,
            )

    def read(
        self,
        values: dict[str, np.ndarray],
        input_size: tuple[int, int],
        min_confidence: float,
    ) -> tuple[_Detections, bool]:
        """Returns what a model detected, from its outputs in their order.

        Also whether these are final boxes, without duplicates. Those above the
        `min_confidence` must be in the unit that the form of the outputs has.
        """
        is_final = self.is_separate
        if self.is_separate:
            boxes, confidences, classes = self._read_separate(values)
            self._require_unit(boxes[confidences > min_confidence])
            if self._is_tensorflow:
                sides = np.tile(input_size[::-1], 2)
                boxes = boxes.astype("float64")[:, [1, 0, 3, 2]] * sides
        else:
            output = next(iter(values.values()))
            is_final = _holds_final_boxes(output[0])
            if is_final:
                boxes, confidences, classes = np.split(output[0], [4, 5], 1)
                confidences, classes = confidences[:, 0], classes[:, 0]
            else:
                boxes, confidences, classes = self._read_single(output)
                center, size = np.split(boxes.astype("float64"), 2, axis=1)
                start = center - size / 2
                boxes = np.concatenate([start, start + size], axis=1)
            self._require_unit(boxes[confidences > min_confidence])
        detections = (
            boxes.astype("float64"),
            confidences.astype("float64"),
            classes.astype("int64"),
        )
        return detections, is_final

    def _read_separate(self, values: dict[str, np.ndarray]) -> _Detections:
        given = {
            role: values[name].reshape(-1) for role, name in self._roles.items()
        }
        scores = given["scores"]
        count = len(scores)
        classes = given.get("classes", np.zeros(count, "int64"))
        if "number" in given:
            count = min(count, int(given["number"][0]))
        boxes = given["boxes"].reshape(-1, 4)
        self._require_confidences(scores[:count], f"of {self._roles['scores']}")
        return boxes[:count], scores[:count], classes[:count]

    def _read_single(self, output: np.ndarray) -> _Detections:
        table = output[0]
        received = f"Received: shape {output.shape} from {self._path!r}"
        if table.shape[0] == table.shape[1]:
            raise ValueError(
                "The output must tell boxes from numbers of a box: there must "
                f"be more boxes. {received}"
            )
        is_rows = table.shape[0] > table.shape[1]
        table = table if is_rows else table.T
        if table.shape[1] < 5:
            raise ValueError(
                f"A box must have 4 numbers, then confidences. {received}"
            )
        boxes, scores = table[:, :4], table[:, 4:]
        layout = "(1, n, 4 + 1 + classes)" if is_rows else "(1, 4 + classes, n)"
        self._require_confidences(
            scores, f"of shape {output.shape}, read as {layout}"
        )
        if is_rows:
            objectness, scores = scores[:, 0], scores[:, 1:]
            if scores.shape[1] == 0:
                return boxes, objectness, np.zeros(len(boxes), "int64")
            scores = scores * objectness[:, np.newaxis]
        classes = scores.argmax(axis=1)
        return boxes, scores[np.arange(len(scores)), classes], classes

    def _require_unit(self, boxes: np.ndarray) -> None:
        """Raises a ValueError if sure boxes are not in the expected unit."""
        largest = boxes.max(initial=0)
        if self._is_tensorflow:
            if largest > _LARGEST_SHARE:
                raise ValueError(
                    "Boxes of an output `detection_boxes` must be shares of "
                    "the input's size, y first. Received: up to "
                    f"{largest:.6g} from {self._path!r}. If they are corners "
                    "in pixels, export the model with x first and another "
                    "name of this output, such as `boxes`"
                )
        elif largest <= 1 and (boxes != np.rint(boxes)).any():
            raise ValueError(
                "Boxes must be in pixels of the input. Received: no number "
                f"above 1 from {self._path!r}: are they shares of the input? "
                "Export the model with boxes multiplied by the input's size; "
                "or, if they are corners with y first, name their output "
                "`detection_boxes`, as TensorFlow does"
            )

    def _require_confidences(self, scores: np.ndarray, where: str) -> None:
        if scores.max(initial=0) > _SUREST:
            raise ValueError(
                "Confidences must be from 0 to 1. Received: up to "
                f"{scores.max():.6g} in the output {where}, from "
                f"{self._path!r}. Export the model in one of the forms that "
                "OnnxDetector names, with confidences behind a sigmoid"
            )


def _holds_final_boxes(table: np.ndarray) -> bool:
    """Whether each row holds two corners, a confidence and a class number.

    Or else center, size, the confidence of an object and that of the only
    class, which could be whole for all boxes as a constant alone. With as many
    boxes as such models give, some would end before they begin then, and the
    surest would not come first.
    """
    if table.shape[1] != 6:
        return False
    confidences, classes = table[:, 4], table[:, 5]
    is_whole = classes == np.rint(classes)
    if not is_whole.all() or confidences.max(initial=0) > _SUREST:
        return False
    # What is left of a fixed number of rows is filled up.
    used = table[confidences > 0]
    if (used[:, 5] < 0).any():
        return False
    is_ordered = used[:, 2:4] >= used[:, :2]
    is_sorted = np.diff(used[:, 4]) <= 0
    return bool((used[:, 5] > 1).any() or is_ordered.all() or is_sorted.all())


def _assign_roles(nodes: Sequence[Any], path: str) -> dict[str, str]:
    """Tells which output is boxes, scores, and maybe classes and number."""
    left = list(nodes)
    roles: dict[str, str] = {}
    for role, words in _ROLES.items():
        named = [n for n in left if any(w in n.name.lower() for w in words)]
        candidates = [n for n in named if _fits(n, role, True)]
        candidates += [n for n in left if _fits(n, role, False)]
        if candidates:
            roles[role] = candidates[0].name
            left.remove(candidates[0])
    if not {"boxes", "scores"} <= roles.keys():
        raise _refusal(
            "Separate outputs must be boxes (n, 4), scores (n,) and maybe "
            "labels (n,), with or without a batch axis. Export the model so, "
            "or with a single output.",
            path,
            nodes,
        )
    return roles


def _fits(node: Any, role: str, is_named: bool) -> bool:
    """Whether an output may have a role, which its name says or does not."""
    is_float = node.type in _TYPES and node.type != "tensor(uint8)"
    if role == "boxes":
        # An axis of any length has a name.
        last = node.shape[-1] if node.shape else None
        is_open = is_named and not isinstance(last, int)
        return is_float and len(node.shape) in (2, 3) and (last == 4 or is_open)
    if len(node.shape) not in (1, 2):
        return False
    if role == "scores":
        return is_float
    return is_named or (role == "classes" and not is_float)
