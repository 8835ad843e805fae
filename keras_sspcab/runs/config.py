"""What a run is made of: the sections of its `config.toml`."""

import dataclasses
from typing import Any

from keras_sspcab.runs.errors import require
from keras_sspcab.runs.objects import ObjectsConfig

LAYOUTS = ("auto", "mvtec", "plain", "ucsd", "avenue", "shanghaitech")
CACHES = ("auto", "memory", "disk", "none")
ON_ERROR = ("raise", "skip")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
NORMALIZATIONS = ("per_video", "none")
SMOOTHINGS = ("none", "median", "gaussian", "mean")
SINGLE_CLASS = ("sentinel", "skip")

_OBJECTS = ObjectsConfig()


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Section `[data]`: which images or videos, and how they are read.

    Attributes:
        path: Folder of the images or videos.
        layout: Of images `"mvtec"` (train/good, test/DEFECT,
            ground_truth/DEFECT); of videos `"ucsd"`, `"avenue"` or
            `"shanghaitech"`; of both `"plain"` (normal ones only, or the
            project's own layout) or `"auto"`.
        image_size: `(height, width)` that images are resized to; one number
            for squares.
        channels: 1 reads images as gray, 3 as RGB.
        patch_size: Side of the random crops to train on; 0 trains on whole
            images.
        patches_per_image: Crops taken of each image in each epoch.
        flip: Whether training images are flipped at random, left to right.
        validation_fraction: Share of the normal training images held out to
            calibrate the thresholds.
        validation_seed: Seed that chooses them, of its own so that runs with
            different training seeds hold out the same images.
        on_error: `"raise"` stops at images that cannot be read, `"skip"`
            leaves them out.
        cache: Where decoded images are kept while training: `"memory"`,
            `"disk"` (in the run folder), `"none"`, or `"auto"`, which is
            memory for up to 1 GiB and else none; for videos it is the disk.
        clip_length: Frames a clip, for hosts that look at videos or objects.
        stride: Frames from one of a clip to the next, 1 for all.
        step: Frames from one training clip to the next; larger ones take fewer
            of the clips that overlap. For hosts that look at objects: from one
            frame whose objects are learned from to the next.
    """

    path: str = ""
    layout: str = "auto"
    image_size: tuple[int, int] = (256, 256)
    channels: int = 3
    patch_size: int = 0
    patches_per_image: int = 8
    flip: bool = False
    validation_fraction: float = 0.1
    validation_seed: int = 0
    on_error: str = "raise"
    cache: str = "auto"
    clip_length: int = 5
    stride: int = 1
    step: int = 1

    def __post_init__(self) -> None:
        require(
            self.layout in LAYOUTS,
            "data.layout",
            f"one of {list(LAYOUTS)}",
            self.layout,
        )
        require(
            min(self.image_size) >= 1,
            "data.image_size",
            "positive",
            list(self.image_size),
        )
        require(
            self.channels in (1, 3), "data.channels", "1 or 3", self.channels
        )
        require(
            0 <= self.patch_size <= min(self.image_size),
            "data.patch_size",
            "at least 0 (whole images) and at most the image size "
            f"{list(self.image_size)}",
            self.patch_size,
        )
        for name in ("patches_per_image", "clip_length", "stride", "step"):
            value = getattr(self, name)
            require(value >= 1, f"data.{name}", "at least 1", value)
        require(
            0 < self.validation_fraction < 1,
            "data.validation_fraction",
            "between 0 and 1 (the thresholds are measured on this part)",
            self.validation_fraction,
        )
        require(
            0 <= self.validation_seed < 2**32,
            "data.validation_seed",
            "from 0 to 2^32 - 1",
            self.validation_seed,
        )
        require(
            self.on_error in ON_ERROR,
            "data.on_error",
            f"one of {list(ON_ERROR)}",
            self.on_error,
        )
        require(
            self.cache in CACHES,
            "data.cache",
            f"one of {list(CACHES)}",
            self.cache,
        )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Section `[model]`: a host and the arguments of its constructor.

    Attributes:
        name: One of the names in `keras_sspcab.hosts.available_applications()`.
        options: All other keys of the section, passed to the host. `"none"`
            stands for None, which TOML lacks.
    """

    name: str = "multiscale_padim"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Section `[training]`.

    Attributes:
        epochs: How often the training images are gone through.
        batch_size: Images (or patches) in one step.
        learning_rate: The rate to begin with; 0 takes that of the host's
            paper. It then follows the paper's schedule.
        seed: Seed of weights, crops, order and simulated anomalies.
        jit_compile: Whether XLA compiles the training step.
        mixed_precision: `"float32"`, `"mixed_float16"` or `"mixed_bfloat16"`.
        checkpoint_every_steps: A checkpoint is written after so many steps;
            0 for no such rule. One is always written after each epoch.
        checkpoint_every_seconds: The same after so many seconds.
    """

    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 0.0
    seed: int = 0
    jit_compile: bool = False
    mixed_precision: str = "float32"
    checkpoint_every_steps: int = 0
    checkpoint_every_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"training.{name}", "at least 1", value)
        for name in (
            "learning_rate",
            "checkpoint_every_steps",
            "checkpoint_every_seconds",
        ):
            value = getattr(self, name)
            require(value >= 0, f"training.{name}", "at least 0", value)
        require(
            0 <= self.seed < 2**32,
            "training.seed",
            "from 0 to 2^32 - 1",
            self.seed,
        )
        require(
            self.mixed_precision in PRECISIONS,
            "training.mixed_precision",
            f"one of {list(PRECISIONS)}",
            self.mixed_precision,
        )


@dataclasses.dataclass(frozen=True)
class CalibrationConfig:
    """Section `[calibration]`: where the thresholds lie.

    Attributes:
        quantile: Share of the held-out normal images below the threshold.
        pixel_quantile: Share of their pixels below the pixel threshold.
    """

    quantile: float = 0.99
    pixel_quantile: float = 0.999

    def __post_init__(self) -> None:
        for name in ("quantile", "pixel_quantile"):
            value = getattr(self, name)
            require(
                0 < value <= 1,
                f"calibration.{name}",
                "above 0 and at most 1",
                value,
            )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Section `[evaluation]`: how the scores of video frames become figures.

    Attributes:
        normalization: `"per_video"` brings the scores of each test video to
            [0, 1] by its own extremes, as most papers do; `"none"` takes the
            calibrated scores, which need no look ahead.
        smoothing: Filter over the frames of a video: `"none"`, `"median"`,
            `"mean"` or `"gaussian"`.
        smoothing_size: Frames under the filter (odd), or the standard deviation
            of the Gaussian in frames.
        single_class: What macro AUC does with videos of one class:
            `"sentinel"` or `"skip"`; see `keras_sspcab.metrics.macro_auc`.
        update_memory: Whether MNAD learns from frames that look normal while
            it is tested, as its paper does.
        region_smoothing: Standard deviation of the Gaussian over anomaly maps
            before regions are cut from them, as a share of their height.
        region_levels: Number of levels at which they are cut, each twice the
            one before; the first is half of what `calibration.pixel_quantile`
            of the pixels of smoothed normal maps stay below.
        region_min_area: Pixels of the map that a region has at least.
        iou_threshold: Overlap from which on a region finds an anomaly.
        track_threshold: Share of a track from which on it is found.
    """

    normalization: str = "per_video"
    smoothing: str = "none"
    smoothing_size: float = 17.0
    single_class: str = "sentinel"
    update_memory: bool = False
    region_smoothing: float = 0.03
    region_levels: int = 4
    region_min_area: int = 4
    iou_threshold: float = 0.1
    track_threshold: float = 0.1

    def __post_init__(self) -> None:
        for name, allowed in (
            ("normalization", NORMALIZATIONS),
            ("smoothing", SMOOTHINGS),
            ("single_class", SINGLE_CLASS),
        ):
            value = getattr(self, name)
            rule = f"one of {list(allowed)}"
            require(value in allowed, f"evaluation.{name}", rule, value)
        size = self.smoothing_size
        require(
            size > 0 and (self.smoothing == "gaussian" or size % 2 == 1),
            "evaluation.smoothing_size",
            "positive, and an odd number of frames for median and mean",
            size,
        )
        require(
            0 <= self.region_smoothing <= 1,
            "evaluation.region_smoothing",
            "from 0 to 1",
            self.region_smoothing,
        )
        for name in ("region_levels", "region_min_area"):
            value = getattr(self, name)
            require(value >= 1, f"evaluation.{name}", "at least 1", value)
        for name in ("iou_threshold", "track_threshold"):
            value = getattr(self, name)
            rule = "above 0 and at most 1"
            require(0 < value <= 1, f"evaluation.{name}", rule, value)


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole configuration of a run; see the sections."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    objects: ObjectsConfig = _OBJECTS
    calibration: CalibrationConfig = CalibrationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Returns the sections as plain values, as they stand in a file."""
        sections = dataclasses.asdict(self)
        options = sections["model"].pop("options")
        sections["model"].update(_none_to_text(options))
        sections["data"]["image_size"] = list(self.data.image_size)
        return sections


def _none_to_text(value: Any) -> Any:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return {key: _none_to_text(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_none_to_text(part) for part in value]
    return value
