"""Detection models in ONNX files."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_sspcab.data.decoding import standardize_size
from keras_sspcab.data.objects.boxes import BoxFilter, clip_boxes, opencv
from keras_sspcab.data.objects.onnx_graph import DetectionOutput, ImageInput
from keras_sspcab.data.objects.proposals import ObjectProposals, named_fields
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.reading import iterate_frames
from keras_sspcab.imports import import_optional

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


@dataclasses.dataclass(eq=False)
class OnnxDetector(ObjectProposals):
    """Finds objects with a detection model that is given as an ONNX file.

    Two forms of outputs are read:

    - separate ones: boxes `(n, 4)`, scores `(n,)` and maybe labels `(n,)`, as
      torchvision and most exporters write them, duplicates left out;
    - a single one, as YOLO exporters write it: rows `(1, n, 4 + 1 + classes)`,
      with a confidence of there being an object before those of the classes,
      or columns `(1, 4 + classes, n)`, duplicates not left out yet.

    Size, layout and type of the input and the form of the outputs are those of
    the graph. It needs `pip install "keras-sspcab[export,video]"`.

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
    iou_threshold: float | str | None = "auto"
    input_size: Any = None
    layout: str | None = None
    resize: str = "letterbox"
    colors: str = "rgb"
    scale: float | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    output: str = "auto"
    box_form: str | None = None
    normalized: bool | None = None
    objectness: bool | None = None
    num_classes: int | None = None
    providers: Sequence[str] | None = None

    name = "onnx"

    def __post_init__(self) -> None:
        self.path = os.path.expanduser(os.fspath(self.path))
        if self.classes is not None:
            self.classes = sorted({int(number) for number in self.classes})
        if self.input_size is not None:
            self.input_size = standardize_size(self.input_size)
        self.mean = _three_numbers(self.mean, "mean")
        self.std = _three_numbers(self.std, "std")
        self._filter = BoxFilter(
            self.min_confidence, self.min_area, self.cover_threshold
        )
        self._session = _open(self.path, self.providers)
        self._input = ImageInput(self._session, self)
        self._output = DetectionOutput(self._session, self)
        threshold: Any = self.iou_threshold
        if threshold == "auto":
            threshold = None if self._output.is_separate else 0.45
        if threshold is not None and not 0 < threshold <= 1:
            raise ValueError(
                "The `iou_threshold` argument must be above 0 and at most 1, "
                f"None or 'auto'. Received: iou_threshold={threshold!r}"
            )
        self._threshold = threshold

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments; the file counts by itself."""
        fields = named_fields(self, without=("path", "providers"))
        return {"opencv": opencv().__version__, **fields}

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
        corners, confidences, classes = self._output.read(outputs, size)
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
        if self._threshold is not None:
            boxes = _suppress(boxes, classes[keep], self._threshold)
        # Corners are between pixels: a box ends before the second one.
        boxes[:, 2:4] -= 1
        return self._filter(clip_boxes(boxes, frame.shape))


def _suppress(
    boxes: np.ndarray, classes: np.ndarray, threshold: float
) -> np.ndarray:
    """Returns the boxes that non-maximum suppression leaves of each class."""
    kept = opencv().dnn.NMSBoxesBatched(
        np.column_stack([boxes[:, :2], boxes[:, 2:4] - boxes[:, :2]]).tolist(),
        boxes[:, 4].tolist(),
        classes.tolist(),
        0.0,
        threshold,
    )
    return boxes[np.sort(np.asarray(kept, "int64").reshape(-1))]


def _open(path: str, providers: Sequence[str] | None) -> Any:
    runtime = import_optional(
        "onnxruntime", "Running a detector needs onnxruntime", "export"
    )
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


def _three_numbers(
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
