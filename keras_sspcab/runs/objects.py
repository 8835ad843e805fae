"""Section `[objects]` of a configuration: how objects are found."""

import dataclasses

from keras_sspcab.runs.errors import require


@dataclasses.dataclass(frozen=True)
class ObjectsConfig:
    """Section `[objects]`, for hosts that look at objects of videos.

    The crops have the size `data.image_size` and `data.clip_length` frames.

    Attributes:
        boxes: Where objects are: `"motion"` finds what moves, without a trained
            network; a folder or file of boxes, see
            `keras_sspcab.data.objects.BoxFiles`; or an ONNX file of a detection
            model, see `OnnxDetector`.
        with_motion: Whether what moves outside the boxes of files or a model
            counts as well.
        min_confidence: Confidence above which such boxes count.
        min_area: Pixels that a box has at least.
        cover_threshold: Share of a box above which it is left out if a larger
            one covers it.
        motion_threshold: Change of a gray value from which on something moves.
        motion_blur: Size of the Gaussian kernel before, odd.
        motion_closing: Pixels over which gaps between moving areas close.
        background_history: Frames that a background is learned from, so that
            slow objects are found as well; 0 takes changes alone.
        flow: `"dis"`, or a folder of flow files.
        masks: Which pixels the object is, for hosts that learn to segment:
            `"motion"` takes what moves, or a folder of masks, see
            `keras_sspcab.data.objects.MaskFiles`; empty for none.
        pictures: Folder of pictures that stand for abnormal appearance; empty
            for the embedded ones.
        folder: Where what is cut out is kept; empty for the run folder. Several
            runs can share one.
        speed: How much faster than normal abnormal motion is.
    """

    boxes: str = "motion"
    with_motion: bool = True
    min_confidence: float = 0.5
    min_area: int = 100
    cover_threshold: float = 0.6
    motion_threshold: int = 18
    motion_blur: int = 3
    motion_closing: int = 0
    background_history: int = 0
    flow: str = "dis"
    masks: str = ""
    pictures: str = ""
    folder: str = ""
    speed: float = 3.0

    def __post_init__(self) -> None:
        for name in ("boxes", "flow"):
            value = getattr(self, name)
            require(bool(value), f"objects.{name}", "a name or path", value)
        for name in ("min_confidence", "cover_threshold"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"objects.{name}", "from 0 to 1", value)
        for name in ("min_area", "motion_closing", "background_history"):
            value = getattr(self, name)
            require(value >= 0, f"objects.{name}", "at least 0", value)
        require(
            0 <= self.motion_threshold <= 254,
            "objects.motion_threshold",
            "from 0 to 254",
            self.motion_threshold,
        )
        require(
            self.motion_blur >= 1 and self.motion_blur % 2 == 1,
            "objects.motion_blur",
            "an odd number of pixels",
            self.motion_blur,
        )
        require(self.speed > 1, "objects.speed", "more than 1", self.speed)
