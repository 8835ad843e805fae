"""Boxes of a detector, and of what moves outside them."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.objects.boxes import standardize_boxes
from keras_sspcab.data.objects.motion import MotionProposals, enlarge_boxes
from keras_sspcab.data.objects.proposals import ObjectProposals
from keras_sspcab.data.video.folder import Video

_EXHAUSTED = object()


class MergedProposals(ObjectProposals):
    """The boxes of a detector, then those of other motion; see `merge`."""

    def __init__(
        self,
        detections: ObjectProposals,
        motion: MotionProposals,
        margin: int = 2,
    ) -> None:
        if not isinstance(motion, MotionProposals):
            raise ValueError(
                "Motion is erased within the detected boxes before its boxes "
                "are found, so `motion` must be `MotionProposals`. Received: "
                f"motion={motion!r}"
            )
        self.detections = detections
        self.motion = motion
        self.margin = standardize_int(margin, "margin", 0)
        self.name = f"{detections.name}+{motion.name}"

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
        return [*self.detections.files(video), *self.motion.files(video)]

    def boxes(self, video: Video) -> Iterator[np.ndarray]:
        """Yields the detected boxes of each frame, then those of motion."""
        what = (
            f"The boxes that {self.detections.name!r} finds in {video.path!r}"
        )
        detections = self.detections.boxes(video)
        count = 0
        for count, mask in enumerate(self.motion.masks(video), 1):
            found: Any = next(detections, _EXHAUSTED)
            if found is _EXHAUSTED:
                raise ValueError(
                    f"{what} must be for every frame. Received: boxes of "
                    f"{count - 1} frames alone"
                )
            detected = standardize_boxes(found, what)
            # Whole pixels as the authors take them: towards 0.
            inner = enlarge_boxes(
                np.trunc(detected), self.margin, mask.shape
            ).astype("int64")
            for x_min, y_min, x_max, y_max in inner[:, :4].tolist():
                if x_max >= x_min and y_max >= y_min:
                    mask[y_min : y_max + 1, x_min : x_max + 1] = 0
            moving = self.motion.boxes_of_mask(mask)
            yield np.concatenate([detected, moving])
        if next(detections, _EXHAUSTED) is not _EXHAUSTED:
            raise ValueError(
                f"{what} must be one array a frame. Received: more than the "
                f"{count} frames"
            )


def merge(
    detections: ObjectProposals, motion: MotionProposals, margin: int = 2
) -> MergedProposals:
    """Adds to detected boxes what moves outside them, as HF2-VAD does.

    Motion within the detected boxes, enlarged by a margin, is erased. Then the
    boxes of the motion that is left are added.

    Args:
        detections: `OnnxDetector(...)`, `BoxFiles(...)` or proposals of your
            own.
        motion: `MotionProposals(...)`.
        margin: Pixels that detected boxes are enlarged by on each side.
            Defaults to 2.

    Returns:
        Proposals.
    """
    return MergedProposals(detections, motion, margin)
