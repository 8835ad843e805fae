"""The outputs of a detection model to corners, confidences and classes."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sspcab.checks import standardize_choice, standardize_int

if TYPE_CHECKING:
    from keras_sspcab.data.objects.onnx_detector import OnnxDetector

#: Corners `(n, 4)`, x and y of both in pixels of the input, ends exclusive,
#: confidences `(n,)`, and classes `(n,)` as the model counts them.
Detections = tuple[np.ndarray, np.ndarray, np.ndarray]


class DetectionOutput:
    """The outputs of a detection model; see `OnnxDetector` for the arguments.

    Attributes:
        is_separate: Whether boxes, scores and classes are outputs of their own.
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
        outputs = session.get_outputs()
        if form == "auto" and len(outputs) > 1:
            form = "separate"
        self._form = form
        self.is_separate = form == "separate"
        default = "cxcywh"
        if self.is_separate:
            self._roles = _assign_roles(outputs, path)
            # TensorFlow's object detection names its outputs so.
            boxes = self._roles["boxes"].split(":")[0]
            is_tensorflow = boxes.endswith("detection_boxes")
            default = "yxyx" if is_tensorflow else "xyxy"
            normalized = is_tensorflow if normalized is None else normalized
        else:
            # Scalars have no axes.
            shape = outputs[0].shape or [None]
            is_batch = isinstance(shape[0], int) and shape[0] != 1
            if len(shape) != 3 or is_batch:
                raise ValueError(
                    "One output must be of shape (1, n, 4 + 1 + classes) or "
                    f"(1, 4 + classes, n). Received: {path!r} with "
                    f"{_describe(outputs)}"
                )
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
        given = {role: values[name] for role, name in self._roles.items()}
        boxes = given["boxes"].reshape(-1, 4)
        scores = given["scores"].reshape(-1)
        count = len(scores)
        classes = np.zeros(count, "int64")
        if "classes" in given:
            classes = given["classes"].reshape(-1)
        if "number" in given:
            count = min(count, int(given["number"].reshape(-1)[0]))
        return boxes[:count], scores[:count], classes[:count]

    def _read_single(self, output: np.ndarray) -> Detections:
        table = output[0]
        form = self._form
        if form == "auto":
            if table.shape[0] == table.shape[1]:
                raise ValueError(
                    "The output does not tell boxes from numbers of a box. "
                    f"Received: shape {output.shape} from "
                    f"{self._options.path!r}. State "
                    'output="rows" or output="columns".'
                )
            # There are more boxes than numbers to each.
            form = "rows" if table.shape[0] > table.shape[1] else "columns"
        if form == "columns":
            table = table.T
        if table.shape[1] < 5:
            raise ValueError(
                "A box must have 4 numbers, then confidences. Received: an "
                f"output of shape {output.shape}, read as {form}, from "
                f"{self._options.path!r}"
            )
        boxes, scores = table[:, :4], table[:, 4:]
        has_objectness = self._options.objectness
        if has_objectness is None:
            has_objectness = form == "rows"
        if has_objectness:
            objectness, scores = scores[:, 0], scores[:, 1:]
            if scores.shape[1] == 0:
                return boxes, objectness, np.zeros(len(boxes), "int64")
            scores = scores * objectness[:, np.newaxis]
        scores = scores[:, : self._options.num_classes]
        classes = scores.argmax(axis=1)
        return boxes, scores[np.arange(len(scores)), classes], classes


def _assign_roles(outputs: Sequence[Any], path: str) -> dict[str, str]:
    """Tells which output is boxes, scores, classes and their number.

    Names decide if the type fits, or else types that fit nothing else. There
    need not be classes and a number.
    """
    left = list(outputs)
    roles: dict[str, str] = {}

    def assign(
        role: str,
        words: tuple[str, ...],
        fits: Callable[[Any], bool],
        is_clear: Callable[[Any], bool],
    ) -> None:
        candidates = [
            output
            for output in left
            if fits(output)
            and any(word in output.name.lower() for word in words)
        ]
        candidates += [output for output in left if is_clear(output)]
        if candidates:
            roles[role] = candidates[0].name
            left.remove(candidates[0])

    def is_list(output: Any) -> bool:
        return len(output.shape) in (1, 2)

    def is_table(output: Any) -> bool:
        return _is_float(output) and len(output.shape) in (2, 3)

    assign("number", ("num",), is_list, lambda output: False)
    assign(
        "boxes",
        ("box",),
        # An axis of any length has a name.
        lambda o: (
            is_table(o)
            and (o.shape[-1] == 4 or not isinstance(o.shape[-1], int))
        ),
        lambda o: is_table(o) and o.shape[-1] == 4,
    )
    assign(
        "classes",
        ("label", "class"),
        is_list,
        lambda o: is_list(o) and not _is_float(o),
    )
    assign(
        "scores",
        ("score", "conf"),
        lambda o: is_list(o) and _is_float(o),
        lambda o: is_list(o) and _is_float(o),
    )
    if not {"boxes", "scores"} <= roles.keys():
        raise ValueError(
            "Separate outputs must be boxes (n, 4), scores (n,) and maybe "
            "labels (n,), with or without a batch axis. Received: "
            f"{path!r} with {_describe(outputs)}. State "
            'output="rows" or output="columns" to read the first one alone.'
        )
    return roles


def _is_float(output: Any) -> bool:
    return output.type in ("tensor(float)", "tensor(float16)", "tensor(double)")


def _describe(outputs: Sequence[Any]) -> str:
    return ", ".join(f"{o.name}: {o.type} {o.shape}" for o in outputs)
