"""The outputs of a detection model to corners, confidences and classes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

#: How the outputs of a model are arranged; see `OnnxDetector`.
FORMS = ("auto", "separate", "rows", "columns")
#: What the four numbers of a box mean.
BOX_FORMS = ("xyxy", "yxyx", "xywh", "cxcywh")


@dataclasses.dataclass(frozen=True)
class OutputSpec:
    """How to read the outputs of a model.

    Attributes:
        form: `"separate"`, `"rows"` or `"columns"`; `"auto"` decides between
            the last two by the shape of the first output.
        box_form: One of `BOX_FORMS`.
        normalized: Whether boxes are in units of the input's size.
        names: For separate outputs, those of boxes, scores and, unless there
            is none, classes and the number of boxes.
        objectness: Whether a confidence of there being an object comes before
            those of the classes; None: in rows.
        num_classes: Classes in a single output; None: all numbers that follow.
    """

    form: str
    box_form: str
    normalized: bool
    names: tuple[str, str, str | None, str | None] | None = None
    objectness: bool | None = None
    num_classes: int | None = None


@dataclasses.dataclass(frozen=True)
class Found:
    """What a model finds in one input.

    Attributes:
        corners: Boxes `(n, 4)`, x and y of both corners, in pixels of the
            input, ends exclusive.
        confidences: Array `(n,)`.
        classes: Numbers of their classes `(n,)`, from those of the model.
    """

    corners: np.ndarray
    confidences: np.ndarray
    classes: np.ndarray


def inspect_outputs(
    session: Any,
    path: str,
    form: str,
    box_form: str | None,
    normalized: bool | None,
) -> OutputSpec:
    """Infers from its graph how the outputs of a model are to be read.

    Raises:
        ValueError: If the outputs have none of the known forms.
    """
    outputs = session.get_outputs()
    names = None
    if form == "auto" and len(outputs) > 1:
        form = "separate"
    if form == "separate":
        names = _separate_names(outputs, path)
        # TensorFlow's object detection names its outputs so.
        is_tensorflow = names[0].split(":")[0].endswith("detection_boxes")
        default = "yxyx" if is_tensorflow else "xyxy"
        normalized = is_tensorflow if normalized is None else normalized
    else:
        # Scalars have no axes.
        shape = outputs[0].shape or [None]
        several = isinstance(shape[0], int) and shape[0] != 1
        if len(shape) != 3 or several:
            raise ValueError(
                "One output must be of shape (1, n, 4 + 1 + classes) or (1, 4 "
                f"+ classes, n). Received: {path!r} with {_describe(outputs)}"
            )
        default = "cxcywh"
    return OutputSpec(form, box_form or default, bool(normalized), names)


def read_outputs(
    values: dict[str, np.ndarray],
    spec: OutputSpec,
    input_size: tuple[int, int],
    path: str,
) -> Found:
    """Returns what a model has found.

    Args:
        values: Its outputs by name, in their order.
        spec: How they are to be read.
        input_size: Height and width of the input.
        path: The model, for the error.
    """
    if spec.names is not None:
        boxes, confidences, classes = _read_separate(values, spec.names)
    else:
        first = next(iter(values.values()))
        boxes, confidences, classes = _read_single(first, spec, path)
    boxes = boxes.astype("float64")
    if spec.normalized:
        height, width = input_size
        is_yx = spec.box_form == "yxyx"
        boxes *= (height, width) * 2 if is_yx else (width, height) * 2
    return Found(
        _to_corners(boxes, spec.box_form),
        confidences.astype("float64"),
        classes.astype("int64"),
    )


def _separate_names(
    outputs: Sequence[Any], path: str
) -> tuple[str, str, str | None, str | None]:
    """Tells boxes, scores, classes and number apart: by name, or by type."""
    left = {output.name: output for output in outputs}

    def take(words: tuple[str, ...], suits: Any) -> str | None:
        named = [n for n in left if any(word in n.lower() for word in words)]
        for name in [n for n in named if suits(left[n])] + [
            n for n in left if suits(left[n]) == "surely"
        ]:
            left.pop(name)
            return name
        return None

    def is_boxes(output: Any) -> Any:
        fits = _is_float(output) and len(output.shape) in (2, 3)
        last = output.shape[-1] if fits else None
        return "surely" if last == 4 else fits and not isinstance(last, int)

    def is_list(output: Any) -> bool:
        return len(output.shape) in (1, 2)

    def is_scores(output: Any) -> Any:
        return is_list(output) and _is_float(output) and "surely"

    def is_classes(output: Any) -> Any:
        return is_list(output) and ("maybe" if _is_float(output) else "surely")

    number = take(("num",), is_list)
    boxes = take(("box",), is_boxes)
    classes = take(("label", "class"), is_classes)
    scores = take(("score", "conf"), is_scores)
    if boxes is None or scores is None:
        raise ValueError(
            "Separate outputs must be boxes (n, 4), scores (n,) and maybe "
            "labels (n,), with or without a batch axis. Received: "
            f"{path!r} with {_describe(outputs)}. State "
            'output="rows" or output="columns" to read the first one alone.'
        )
    return boxes, scores, classes, number


def _read_separate(
    values: dict[str, np.ndarray],
    names: tuple[str, str, str | None, str | None],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes = values[names[0]].reshape(-1, 4)
    scores = values[names[1]].reshape(-1)
    classes = np.zeros(len(scores), "int64")
    if names[2] is not None:
        classes = values[names[2]].reshape(-1)
    count = len(scores)
    if names[3] is not None:
        count = min(count, int(values[names[3]].reshape(-1)[0]))
    return boxes[:count], scores[:count], classes[:count]


def _read_single(
    output: np.ndarray, spec: OutputSpec, path: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = output[0]
    form = spec.form
    if form == "auto":
        if table.shape[0] == table.shape[1]:
            raise ValueError(
                f"The output of {path!r} does not tell boxes from numbers of a "
                f'box. Received: shape {output.shape}. State output="rows" or '
                'output="columns".'
            )
        # There are more boxes than numbers to each.
        form = "rows" if table.shape[0] > table.shape[1] else "columns"
    if form == "columns":
        table = table.T
    has_objectness = spec.objectness
    if has_objectness is None:
        has_objectness = form == "rows"
    if table.shape[1] < 5:
        raise ValueError(
            "A box must have 4 numbers, then confidences. Received: "
            f"{path!r} with an output of shape {output.shape}, read as {form}"
        )
    boxes, scores = table[:, :4], table[:, 4:]
    if has_objectness:
        objectness, scores = scores[:, 0], scores[:, 1:]
        if scores.shape[1] == 0:
            return boxes, objectness, np.zeros(len(boxes), "int64")
        scores = scores * objectness[:, np.newaxis]
    scores = scores[:, : spec.num_classes]
    classes = scores.argmax(axis=1)
    return boxes, scores[np.arange(len(scores)), classes], classes


def _to_corners(boxes: np.ndarray, box_form: str) -> np.ndarray:
    if box_form == "xyxy":
        return boxes
    if box_form == "yxyx":
        return boxes[:, [1, 0, 3, 2]]
    first, size = boxes[:, :2], boxes[:, 2:]
    if box_form == "cxcywh":
        first = first - size / 2
    return np.concatenate([first, first + size], axis=1)


def _is_float(output: Any) -> bool:
    return output.type in ("tensor(float)", "tensor(float16)", "tensor(double)")


def _describe(outputs: Sequence[Any]) -> str:
    return ", ".join(f"{o.name}: {o.type} {o.shape}" for o in outputs)
