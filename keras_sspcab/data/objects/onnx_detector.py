"""Detection models in ONNX files."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_choice, standardize_int
from keras_sspcab.data.decoding import standardize_size
from keras_sspcab.data.objects._onnx_input import (
    RESIZING,
    fit_to_input,
    inspect_input,
    to_tensor,
)
from keras_sspcab.data.objects._onnx_output import (
    BOX_FORMS,
    FORMS,
    inspect_outputs,
    read_outputs,
)
from keras_sspcab.data.objects._optional import onnxruntime, opencv
from keras_sspcab.data.objects.boxes import BoxFilter, clip_boxes
from keras_sspcab.data.objects.proposals import ObjectProposals
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.reading import iterate_frames

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


class OnnxDetector(ObjectProposals):
    """Finds objects with a detection model that is given as an ONNX file.

    Two forms of outputs are read:

    - separate ones: boxes `(n, 4)`, scores `(n,)` and maybe labels `(n,)`, as
      torchvision and most exporters write them, duplicates left out;
    - a single one, as YOLO exporters write it: rows `(1, n, 4 + 1 + classes)`,
      with a confidence of there being an object before those of the classes,
      or columns `(1, 4 + classes, n)`. Duplicates within a class are left out
      by non-maximum suppression.

    What the graph tells is taken from it: size, layout and type of the input,
    and the form of the outputs. It needs onnxruntime: `pip install
    "keras-sspcab[export,video]"`.

    Args:
        path: The model.
        min_confidence: Boxes of this confidence or less are left out.
            Defaults to 0.5.
        min_area: Boxes of fewer pixels are left out. Defaults to 100.
        cover_threshold: Share of a box's area above which it is left out if a
            larger box covers it. Defaults to 0.6; None keeps all.
        classes: Numbers of the classes to keep, as the model counts them; None
            (the default) keeps all.
        iou_threshold: Overlap (intersection over union) above which the less
            sure of two boxes of a class is left out. None suppresses nothing.
            `"auto"` (the default) is 0.45 for a single output and None for
            separate ones.
        input_size: Height and width that frames are resized to; needed only if
            the model takes any size and shall not see that of the frames.
        layout: `"nchw"` or `"nhwc"`; None (the default) infers it.
        resize: `"letterbox"` (the default) keeps the aspect ratio and fills
            margins with gray, `"stretch"` does not keep it.
        colors: `"rgb"` (the default) or `"bgr"`.
        scale: What pixels from 0 to 255 are multiplied with. Defaults to 1/255
            for float inputs; uint8 inputs take them as they are.
        mean: Three numbers that are subtracted then.
        std: Three numbers that the result is divided by.
        output: `"separate"`, `"rows"`, `"columns"` or `"auto"` (the default),
            which takes a single output's longer axis for that of the boxes.
        box_form: `"xyxy"`, `"yxyx"`, `"xywh"` or `"cxcywh"`; None (the default)
            takes `"xyxy"` for separate outputs and `"cxcywh"` for a single one.
        normalized: True if boxes are in units of the input's size instead of
            its pixels. Defaults to False.
        objectness: Whether a single output has a confidence of there being an
            object; None (the default): rows do, columns do not.
        num_classes: Classes in a single output; None (the default): all
            numbers after those before belong to classes.
        providers: What onnxruntime runs on; None (the default) for CUDA where
            it is there, or else the CPU.

    Raises:
        ValueError: If the model cannot be read, or is none of these.
        ImportError: If onnxruntime is missing.
    """

    name = "onnx"

    def __init__(
        self,
        path: Any,
        min_confidence: float = 0.5,
        min_area: float = 100,
        cover_threshold: float | None = 0.6,
        classes: Iterable[int] | None = None,
        iou_threshold: float | str | None = "auto",
        input_size: Any = None,
        layout: str | None = None,
        resize: str = "letterbox",
        colors: str = "rgb",
        scale: float | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        output: str = "auto",
        box_form: str | None = None,
        normalized: bool | None = None,
        objectness: bool | None = None,
        num_classes: int | None = None,
        providers: Sequence[str] | None = None,
    ) -> None:
        self.path = os.path.expanduser(os.fspath(path))
        self.filter = BoxFilter(min_confidence, min_area, cover_threshold)
        self.classes = None if classes is None else sorted(set(classes))
        if layout is not None:
            layout = standardize_choice(layout, ("nchw", "nhwc"), "layout")
        self.resize = standardize_choice(resize, RESIZING, "resize")
        self.colors = standardize_choice(colors, ("rgb", "bgr"), "colors")
        self.scale = scale
        self.mean = _three(mean, "mean")
        self.std = _three(std, "std")
        output = standardize_choice(output, FORMS, "output")
        if box_form is not None:
            box_form = standardize_choice(box_form, BOX_FORMS, "box_form")

        self._session = _open(self.path, providers)
        self.input = inspect_input(self._session, self.path, layout)
        self.output = inspect_outputs(
            self._session, self.path, output, box_form, normalized
        )
        if num_classes is not None:
            standardize_int(num_classes, "num_classes", 1)
        self.output = dataclasses.replace(
            self.output, objectness=objectness, num_classes=num_classes
        )
        if iou_threshold == "auto":
            iou_threshold = None if self.output.names else 0.45
        if iou_threshold is not None and not 0 < float(iou_threshold) <= 1:
            raise ValueError(
                "The `iou_threshold` argument must be above 0 and at most 1, "
                f"None or 'auto'. Received: iou_threshold={iou_threshold!r}"
            )
        self.iou_threshold = (
            None if iou_threshold is None else float(iou_threshold)
        )
        self.input_size = self._resolve_size(input_size)

    def __repr__(self) -> str:
        return f"OnnxDetector({self.path!r})"

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments; the file counts by itself."""
        return {
            "name": self.name,
            "opencv": opencv().__version__,
            "input": [
                self.input_size,
                self.input.channels_first,
                self.resize,
                self.colors,
                self.scale,
                self.mean,
                self.std,
            ],
            "output": [
                self.output.form,
                self.output.box_form,
                self.output.normalized,
                self.output.objectness,
                self.output.num_classes,
            ],
            "classes": self.classes,
            "iou_threshold": self.iou_threshold,
            **self.filter.settings,
        }

    def files(self, video: Video) -> list[str]:
        """Returns the path of the model."""
        return [self.path]

    def boxes(self, video: Video) -> Iterator[np.ndarray]:
        """Yields the boxes in each frame of a video."""
        for position, frame in enumerate(iterate_frames(video)):
            try:
                found = self.detect(frame)
            except ValueError as error:
                raise ValueError(
                    f"{error} (frame {position} of {video.path!r})"
                ) from error
            yield found

    def detect(self, frame: np.ndarray) -> np.ndarray:
        """Returns the boxes in a frame, surest first.

        Args:
            frame: uint8 array `(height, width, 3)`, RGB.

        Returns:
            Array `(n, 5)`, as `boxes` yields.
        """
        fitted = fit_to_input(frame, self.input_size, self.resize)
        pixels = fitted.pixels
        if self.colors == "bgr":
            pixels = pixels[..., ::-1]
        tensor = to_tensor(pixels, self.input, self.scale, self.mean, self.std)
        names = [output.name for output in self._session.get_outputs()]
        values = self._session.run(names, {self.input.name: tensor})
        found = read_outputs(
            dict(zip(names, values, strict=True)),
            self.output,
            fitted.pixels.shape[:2],
            self.path,
        )
        keep = found.confidences > self.filter.min_confidence
        if self.classes is not None:
            keep &= np.isin(found.classes, self.classes)
        corners = fitted.to_frame(found.corners[keep])
        boxes = np.column_stack([corners, found.confidences[keep]])
        if not np.isfinite(boxes).all():
            raise ValueError(
                "A detector must give finite boxes. Received: numbers that are "
                f"not finite from {self.path!r}"
            )
        order = np.argsort(-boxes[:, 4], kind="stable")
        boxes, classes = boxes[order], found.classes[keep][order]
        if self.iou_threshold is not None:
            boxes = boxes[_distinct(boxes, classes, self.iou_threshold)]
        # Corners are between pixels: a box ends before the second one.
        boxes[:, 2:4] -= 1
        boxes = clip_boxes(boxes, frame.shape[:2])
        return self.filter(boxes)

    def _resolve_size(self, given: Any) -> tuple[int | None, int | None]:
        if given is None:
            return self.input.size
        size = standardize_size(given)
        fixed = zip(self.input.size, size, strict=True)
        if any(own not in (None, wanted) for own, wanted in fixed):
            raise ValueError(
                f"The input of {self.path!r} has a size of its own, "
                f"{self.input.size}. Received: input_size={given!r}"
            )
        return size


def _distinct(
    boxes: np.ndarray, classes: np.ndarray, threshold: float
) -> np.ndarray:
    """Returns positions of boxes after suppression within each class."""
    if not len(boxes):
        return np.empty(0, "int64")
    rectangles = np.column_stack([boxes[:, :2], boxes[:, 2:4] - boxes[:, :2]])
    kept = [
        positions[
            np.asarray(
                opencv().dnn.NMSBoxes(
                    rectangles[positions].tolist(),
                    boxes[positions, 4].tolist(),
                    0.0,
                    threshold,
                ),
                "int64",
            ).reshape(-1)
        ]
        for positions in (
            np.flatnonzero(classes == number) for number in np.unique(classes)
        )
    ]
    return np.sort(np.concatenate(kept))


def _open(path: str, providers: Sequence[str] | None) -> Any:
    runtime = onnxruntime()
    if not os.path.isfile(path):
        raise ValueError(
            f"The detector does not exist. Received: path={path!r}"
        )
    if providers is None:
        available = runtime.get_available_providers()
        providers = [name for name in _PROVIDERS if name in available]
    try:
        return runtime.InferenceSession(path, providers=list(providers))
    except Exception as error:
        # onnxruntime has errors of its own, without a common base.
        raise ValueError(
            f"The detector {path!r} cannot be loaded: {error}"
        ) from error


def _three(
    values: Sequence[float] | None, name: str
) -> tuple[float, ...] | None:
    if values is None:
        return None
    three = tuple(float(value) for value in values)
    if len(three) != 3 or (name == "std" and 0 in three):
        raise ValueError(
            f"The `{name}` argument must hold a number for each of three "
            f"colors, none of them 0 for `std`. Received: {name}={values!r}"
        )
    return three
