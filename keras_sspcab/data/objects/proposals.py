"""What finds objects in videos: motion, detectors, or both."""

import abc
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_sspcab.checks import (
    standardize_int,
    standardize_number,
    standardize_odd,
)
from keras_sspcab.data.objects.boxes import (
    BoxFilter,
    clip_boxes,
    opencv,
    standardize_boxes,
)
from keras_sspcab.data.scanning import IMAGE_EXTENSIONS
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.masks import iterate_masks
from keras_sspcab.data.video.per_frame import (
    FrameFiles,
    FrameSource,
    zip_frames,
)
from keras_sspcab.data.video.reading import iterate_frames

# Value of the background subtractor's mask for what is no shadow.
_FOREGROUND = 255


class ObjectProposals(FrameSource):
    """Finds boxes around objects in each frame of a video.

    A subclass writes `name`, `settings` and `boxes`, and `files` if it reads
    some. It is called in threads, for several videos at a time.

    Example:
    >>> class MiddleOfFrames(ObjectProposals):
    ...     name = "middle"
    ...     settings = {"name": "middle", "version": 1}
    ...
    ...     def boxes(self, video):
    ...         for _ in range(video.num_frames):
    ...             yield np.array([[100, 80, 219, 159, 1.0]])
    >>> video = Video("street", "street.mp4", num_frames=3)
    >>> len(list(MiddleOfFrames().boxes(video)))
    3
    """

    name: str

    @abc.abstractmethod
    def boxes(self, video: Video) -> Iterator[np.ndarray]:
        """Yields the boxes `(n, 5)` in each frame of a video, in order.

        They are `x_min`, `y_min`, `x_max`, `y_max` in pixels of the frame, both
        ends included, and a confidence.
        """


def named_fields(
    proposals: Any, without: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Returns the name and the fields of proposals that are a dataclass."""
    names = [field.name for field in dataclasses.fields(proposals)]
    fields = {n: getattr(proposals, n) for n in names if n not in without}
    return {"name": proposals.name, **fields}


@dataclasses.dataclass(frozen=True)
class MotionProposals(ObjectProposals):
    """Finds what changes between frames t-1, t and t+1.

    Frames are blurred, the absolute differences of neighbors summed and
    thresholded, and the bounding rectangles of the outer contours are the
    boxes, as HF2-VAD (Liu et al., ICCV 2021) adds them to those of its
    detector. The first and the last frame are paired with themselves. An evenly
    colored object that moves by less than its size gives a box at each of its
    edges: `closing` joins what is near.

    What moves slowly changes too little from frame to frame. With
    `background_history`, what differs from the learned background (MOG2 in
    OpenCV: Zivkovic and van der Heijden, 2006), to begin with the first frame,
    counts as well.

    Args:
        threshold: Sum of the differences, from 0 to 254, above which a color
            value has changed. Defaults to 18.
        blur: Size of the Gaussian kernel, odd. Defaults to 3; 1 does nothing.
        min_area: Rectangles of w x h pixels are kept if (w + 1)(h + 1) is
            above. Defaults to 100.
        max_aspect: Longer side divided by the shorter one must be below.
            Defaults to 10.
        margin: Pixels that boxes are enlarged by on each side. Defaults to 2.
        cover_threshold: Share of a box's area above which it is left out if a
            larger box covers it. Defaults to 0.6; None keeps all.
        closing: Pixels that changed areas grow by, and shrink again, so that
            gaps close. Defaults to 0.
        background_history: Frames that the background is learned from. What
            rests for about a tenth of them becomes background. None (the
            default) uses differences alone.
        background_threshold: Squared Mahalanobis distance from the background
            above which a pixel is foreground. Defaults to 16.

    Example:
    >>> mask = np.zeros((48, 64), "uint8")
    >>> mask[10:30, 20:40] = 255
    >>> MotionProposals().boxes_of_mask(mask)
    array([[18.,  8., 41., 31.,  1.]])
    """

    threshold: int = 18
    blur: int = 3
    min_area: float = 100
    max_aspect: float = 10.0
    margin: int = 2
    cover_threshold: float | None = 0.6
    closing: int = 0
    background_history: int | None = None
    background_threshold: float = 16.0

    name = "motion"

    def __post_init__(self) -> None:
        # Differences of 8-bit values saturate at 255.
        standardize_number(self.threshold, "threshold", 0, 254)
        standardize_int(self.margin, "margin", 0)
        standardize_int(self.closing, "closing", 0)
        standardize_odd(self.blur, "blur")
        standardize_number(self.max_aspect, "max_aspect", 1, excluded=1)
        if self.background_history is not None:
            standardize_int(self.background_history, "background_history", 1)
        BoxFilter(0, self.min_area, self.cover_threshold)

    @property
    def settings(self) -> dict[str, Any]:
        """All arguments and OpenCV's version."""
        return {"opencv": opencv().__version__, **named_fields(self)}

    def boxes(self, video: Video) -> Iterator[np.ndarray]:
        """Yields the boxes of each frame; their confidence is 1."""
        for mask in self.masks(video):
            yield self.boxes_of_mask(mask)

    def masks(self, video: Video) -> Iterator[np.ndarray]:
        """Yields what has changed in each frame: not 0, with gaps."""
        cv2 = opencv()
        background = None
        if self.background_history is not None:
            background = cv2.createBackgroundSubtractorMOG2(
                self.background_history, self.background_threshold
            )
        size = (self.blur, self.blur)
        blurred = (
            cv2.GaussianBlur(frame, size, 0) for frame in iterate_frames(video)
        )
        for position, (before, frame, after) in enumerate(_triples(blurred)):
            total = cv2.add(
                cv2.absdiff(before, frame), cv2.absdiff(frame, after)
            )
            changed = (total > self.threshold).any(axis=2)
            if background is not None:
                # A constant rate: OpenCV's own one forgets fast at first.
                rate = 1 / background.getHistory()
                mask = background.apply(frame, learningRate=rate)
                # The first frame is background, whatever OpenCV's mask says.
                if position:
                    changed |= mask == _FOREGROUND
            yield changed.astype("uint8") * 255

    def boxes_of_mask(self, mask: np.ndarray) -> np.ndarray:
        """Returns the boxes `(n, 5)` around what is not 0 in a mask."""
        cv2 = opencv()
        if self.closing:
            side = 2 * self.closing + 1
            mask = cv2.morphologyEx(
                mask, cv2.MORPH_CLOSE, np.ones((side, side), "uint8")
            )
        contours, _ = cv2.findContours(
            mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        rows = []
        for contour in contours:
            x, y, width, height = cv2.boundingRect(contour)
            longer, shorter = max(width, height), min(width, height)
            # The area of the published rule.
            is_large = (width + 1) * (height + 1) > self.min_area
            if is_large and longer < self.max_aspect * shorter:
                rows.append((x, y, x + width - 1, y + height - 1, 1.0))
        boxes = np.array(rows, "float64").reshape(-1, 5)
        boxes = clip_boxes(boxes, mask.shape, self.margin)
        # OpenCV lists contours from the bottom to the top.
        boxes = boxes[np.lexsort(boxes.T[[0, 1]])]
        return BoxFilter(cover_threshold=self.cover_threshold)(boxes)


def _triples(frames: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields each frame between its neighbors, at either end itself."""
    before = current = next(frames)
    for after in frames:
        yield before, current, after
        before, current = current, after
    yield before, current, current


@dataclasses.dataclass(eq=False)
class MergedProposals(ObjectProposals):
    """Adds to detected boxes what moves outside them, as HF2-VAD does.

    Motion within the detected boxes, enlarged by a `margin` in pixels, is
    erased. Then the boxes of the motion that is left are added.

    Example:
    >>> from keras_sspcab.data.objects import BoxFiles
    >>> MergedProposals(BoxFiles("."), MotionProposals()).name
    'files+motion'
    """

    detections: ObjectProposals
    motion: MotionProposals
    margin: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.motion, MotionProposals):
            raise ValueError(
                "Motion is erased within the detected boxes before its boxes "
                "are found, so `motion` must be `MotionProposals`. Received: "
                f"motion={self.motion!r}"
            )
        self.margin = standardize_int(self.margin, "margin", 0)
        self.name = f"{self.detections.name}+{self.motion.name}"

    @property
    def settings(self) -> dict[str, Any]:
        """Those of both, and the margin."""
        return {
            "name": self.name,
            "detections": self.detections.settings,
            "motion": self.motion.settings,
            "margin": self.margin,
        }

    def files(self, video: Video) -> list[str]:
        """Lists the files of the detections."""
        return self.detections.files(video)

    def boxes(self, video: Video) -> Iterator[np.ndarray]:
        """Yields the detected boxes of each frame, then those of motion."""
        what = f"boxes of {self.detections.name!r}"
        parts = {
            what: self.detections.boxes(video),
            "frames": self.motion.masks(video),
        }
        for given, mask in zip_frames(video, parts):
            detected = standardize_boxes(given, f"The {what}, {video.path!r},")
            # Whole pixels as the authors take them: towards 0.
            inner = clip_boxes(np.trunc(detected), mask.shape, self.margin)
            for x_min, y_min, x_max, y_max in inner[:, :4].astype(int).tolist():
                if x_max >= x_min and y_max >= y_min:
                    mask[y_min : y_max + 1, x_min : x_max + 1] = 0
            yield np.concatenate([detected, self.motion.boxes_of_mask(mask)])


# === Masks ===


class MaskFiles(FrameFiles):
    """Reads the masks of objects from files, as a segmentation gives them.

    For a video called `NAME`, `folder` holds a folder `NAME` with an image for
    each frame, in the order of their names, or an array `NAME.npy` `(frames,
    height, width)`; videos without them have none. Pixels above 0 belong to an
    object, so that instances may have numbers. Other sizes are brought to that
    of the frames by the nearest neighbor.

    Example:
    >>> MaskFiles(".").has(Video("street", "street.mp4"))
    False
    """

    what = "masks"
    single = (".npy",)
    several = IMAGE_EXTENSIONS

    def has(self, video: Video) -> bool:
        """Returns whether there is a file or folder for a video."""
        base = os.path.join(self.folder, video.name)
        return os.path.isfile(f"{base}.npy") or os.path.isdir(base)

    def iterate(
        self, video: Video, image_size: Any = None
    ) -> Iterator[np.ndarray]:
        """Yields the mask of each frame; a ValueError says what is missing."""
        files, is_single = self._find(video)
        path = files[0] if is_single else os.path.dirname(files[0])
        masked = dataclasses.replace(video, masks=path)
        return iterate_masks(masked, image_size)


class MotionMasks(FrameSource):
    """Takes what moves for the objects: masks without a trained network.

    Example:
    >>> MotionMasks(MotionProposals()).settings["name"]
    'motion'
    """

    def __init__(self, motion: MotionProposals) -> None:
        self.motion = motion

    @property
    def settings(self) -> dict[str, object]:
        """Those of the motion."""
        return {"name": "motion", "motion": self.motion.settings}

    def iterate(
        self, video: Video, image_size: Any = None
    ) -> Iterator[np.ndarray]:
        """Yields what moves in each frame, at the size of the frame."""
        for mask in self.motion.masks(video):
            yield mask > 0
