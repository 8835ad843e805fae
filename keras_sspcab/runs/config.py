"""What a run is made of: the sections of its `config.toml`."""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from keras_sspcab.preprocessing import Fit, ResizeMethod
from keras_sspcab.variants import SYMMETRIES


class ConfigError(ValueError):
    """Says which settings cannot be used, where they stand, and why.

    Example:
    >>> issubclass(ConfigError, ValueError)
    True
    """


def _to_size(value: Any) -> tuple[int, int]:
    if isinstance(value, str) and re.fullmatch(r"\d+(x\d+)?", value):
        numbers = [int(side) for side in value.split("x")]
        value = numbers[0] if len(numbers) == 1 else numbers
    sides = (value, value) if isinstance(value, int) else value
    if (value == 0 and type(value) is int) or value in ([0, 0], (0, 0)):
        return 0, 0
    if not (
        isinstance(sides, (list, tuple))
        and len(sides) == 2
        and all(type(side) is int and side >= 1 for side in sides)
    ):
        raise ValueError("a positive integer or a list of two, [height, width]")
    return sides[0], sides[1]


#: Where a run can be logged; see `TrackingConfig`.
LOGGERS = ("tensorboard", "mlflow", "wandb")


def _list_of(names: Sequence[str]) -> str:
    return f"a list of {', '.join(names)}"


def _some_of(names: Sequence[str]) -> BeforeValidator:
    """Checks a list of some of the names; in a text, commas part them."""

    def to_tuple(value: Any) -> tuple[str, ...]:
        given = value.split(",") if isinstance(value, str) else value
        if not isinstance(given, (list, tuple)) or {*given} - {*names}:
            raise ValueError(_list_of(names))
        return tuple(dict.fromkeys(given))

    return BeforeValidator(to_tuple)


# Errors of validators complete the sentence "`section.key` must be ...".
Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Source = Annotated[str, Field(min_length=1)]
Size = Annotated[
    tuple[int, int],
    BeforeValidator(_to_size),
    WithJsonSchema({"type": "an integer or [height, width]"}),
]

Loggers = Annotated[
    tuple[str, ...],
    _some_of(LOGGERS),
    WithJsonSchema({"type": _list_of(LOGGERS)}),
]
Symmetries = Annotated[
    tuple[str, ...],
    _some_of(SYMMETRIES),
    WithJsonSchema({"type": _list_of(SYMMETRIES)}),
]


class _Section(BaseModel):
    """Settings that belong together; frozen, and with no type converted."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False
    )


class DataConfig(_Section):
    """Section `[data]`: which images or videos, and how they are read.

    Attributes:
        path: Folder of the images or videos.
        layout: Of images `"mvtec"`, or `"products"` for a folder of each of
            several products; of videos `"ucsd"`, `"avenue"` or
            `"shanghaitech"`; of both `"plain"` (normal ones only, or the
            project's own layout) or `"auto"`.
        image_size: `(height, width)` that images are resized to; one number
            for squares; 0 for that of the training images, which must agree.
        channels: 1 reads images as gray, 3 as RGB.
        white_level: The value that is white in images with 16 bits, such as
            4095 of a camera with 12; 0 finds it in the training images.
        resize: How: `"bilinear"`, `"area"` or `"opencv"`, as most published
            code; see `keras_sspcab.data.resize`.
        fit: What becomes of the aspect ratio of images: `"stretch"` changes it,
            `"pad"` fills up with gray that does not count, `"crop"` cuts off.
        patch_size: Side of the random crops to train on; 0 for whole images.
        patches_per_image: Crops taken of each image in each epoch.
        flip: Whether training images are flipped at random, left to right.
        symmetric: What leaves a normal image normal: `"rotate"` (by 90 degrees,
            or 180 where images are not square), `"flip"` (mirrored). Statistics
            of frozen features are fitted to all such variants, other models
            trained on one at random.
        brightness: Share by which normal images may be darker or brighter, for
            statistics of frozen features.
        validation_fraction: Share of the normal training images held out to
            calibrate the thresholds.
        validation_seed: Seed that chooses the held-out ones, whatever the
            training's seed.
        on_error: What images do that cannot be read: `"raise"`, or `"skip"`.
        cache: Where decoded images are kept while training: `"memory"`,
            `"disk"` (in the run folder), `"none"`, or `"auto"`, which is
            memory for up to 1 GiB and else none; for videos it is the disk.
        clip_length: Frames in a clip, for hosts that look at videos or objects.
        stride: Frames from one of a clip to the next, 1 for all.
        step: Frames from one training clip to the next or, for hosts that look
            at objects, from one frame to the next.

    Example:
    >>> DataConfig(image_size=64).image_size
    (64, 64)
    """

    path: str = ""
    layout: Literal[
        "auto",
        "mvtec",
        "plain",
        "products",
        "ucsd",
        "avenue",
        "shanghaitech",
    ] = "auto"
    image_size: Size = (256, 256)
    channels: Literal[1, 3] = 3
    white_level: Literal[0, 255, 1023, 4095, 16383, 65535] = 0
    resize: ResizeMethod = "bilinear"
    fit: Fit = "stretch"
    patch_size: NotNegative = 0
    patches_per_image: Positive = 8
    flip: bool = False
    symmetric: Symmetries = ()
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.0
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    validation_seed: Seed = 0
    on_error: Literal["raise", "skip"] = "raise"
    cache: Literal["auto", "memory", "disk", "none"] = "auto"
    clip_length: Positive = 5
    stride: Positive = 1
    step: Positive = 1

    @field_validator("patch_size")
    @classmethod
    def _check_patch_size(cls, value: int, info: ValidationInfo) -> int:
        size = info.data.get("image_size")
        if size is not None and any(size) and value > min(size):
            raise ValueError(
                "0 (whole images) or at most the image size, which is "
                f"{list(size)}"
            )
        return value


class InspectionConfig(_Section):
    """Section `[inspection]`: what of an image is looked at, and how.

    For hosts of images; see `keras_sspcab.hosts.InspectionModel`.

    Attributes:
        tile: Side of the tiles that the host looks at, in pixels; 0 for the
            whole image at once. With tiles, `data.image_size` is by default
            that of the images.
        overlap: Share of a tile's side that neighbors have in common at least.
        roi: Regions of interest, a mask or shapes in TOML: what is outside does
            not count; see `keras_sspcab.data.read_regions`. Empty for all of
            the image.
        align: Whether images are rotated and shifted so that they lie as one of
            the normal ones does; see `keras_sspcab.layers.ImageRegistration`.
        max_angle: Largest angle that is tried for it, in degrees.
        max_shift: Largest shift, as a share of the longer side of the image.

    Example:
    >>> InspectionConfig(tile=256).is_used
    True
    """

    tile: NotNegative = 0
    overlap: Annotated[float, Field(ge=0, le=0.5)] = 0.25
    roi: str = ""
    align: bool = False
    max_angle: Annotated[float, Field(ge=0, le=180)] = 180.0
    max_shift: Annotated[float, Field(ge=0, le=0.5)] = 0.25

    @property
    def is_used(self) -> bool:
        """Whether images need more than the host."""
        return bool(self.tile or self.roi or self.align)


class _OpenSection(_Section):
    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The settings of the host, by key."""
        return dict(self.model_extra or {})


class ModelConfig(_OpenSection):
    """Section `[model]`: a host and the arguments of its constructor.

    Attributes:
        name: One of the names in `keras_sspcab.hosts.available_applications()`.
        options: All other keys; in a file, `"none"` stands for None.

    Example:
    >>> ModelConfig(name="mnad", base_width=8).options
    {'base_width': 8}
    """

    name: str = "multiscale_padim"


class TrainingConfig(_Section):
    """Section `[training]`.

    Attributes:
        epochs: How often the training images are gone through.
        batch_size: Images (or patches) in one step.
        learning_rate: The rate to begin with, before the schedule of the host's
            paper; 0 takes that of the paper.
        seed: Seed of weights, crops, order and simulated anomalies.
        jit_compile: Whether XLA compiles the training step.
        mixed_precision: `"float32"`, `"mixed_float16"` or `"mixed_bfloat16"`.
        checkpoint_every_steps: Steps after which a checkpoint is written,
            besides that after each epoch; 0 for no such rule.
        checkpoint_every_seconds: Seconds after which one is written, likewise.

    Example:
    >>> TrainingConfig(epochs=3).batch_size
    32
    """

    epochs: Positive = 30
    batch_size: Positive = 32
    learning_rate: Annotated[float, Field(ge=0)] = 0.0
    seed: Seed = 0
    jit_compile: bool = False
    mixed_precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = (
        "float32"
    )
    checkpoint_every_steps: NotNegative = 0
    checkpoint_every_seconds: Annotated[float, Field(ge=0)] = 60.0


class ObjectsConfig(_Section):
    """Section `[objects]`, for hosts that look at objects of videos.

    The crops have the size `data.image_size` and `data.clip_length` frames.

    Attributes:
        boxes: Where objects are: `"motion"` takes what moves; or a folder or
            file of boxes (`keras_sspcab.data.objects.BoxFiles`); or a detection
            model in ONNX (`OnnxDetector`).
        with_motion: Whether what moves outside of such boxes counts as well.
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
            `"motion"`, a folder (`keras_sspcab.data.objects.MaskFiles`), or
            empty for none.
        pictures: Folder of pictures that stand for abnormal appearance; empty
            for the embedded ones.
        folder: Where what is cut out is kept, for several runs if they share
            it; empty for the run folder.
        speed: How much faster than normal abnormal motion is.

    Example:
    >>> ObjectsConfig(boxes="boxes/").flow
    'dis'
    """

    boxes: Source = "motion"
    with_motion: bool = True
    min_confidence: Share = 0.5
    min_area: NotNegative = 100
    cover_threshold: Share = 0.6
    motion_threshold: Annotated[int, Field(ge=0, le=254)] = 18
    motion_blur: Positive = 3
    motion_closing: NotNegative = 0
    background_history: NotNegative = 0
    flow: Source = "dis"
    masks: str = ""
    pictures: str = ""
    folder: str = ""
    speed: Annotated[float, Field(gt=1)] = 3.0

    @field_validator("motion_blur")
    @classmethod
    def _check_motion_blur(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("an odd number of pixels")
        return value


class CalibrationConfig(_Section):
    """Section `[calibration]`: where the thresholds lie.

    Attributes:
        quantile: Share of the normal images that shall not be flagged.
        pixel_quantile: Share of their pixels below the pixel threshold.
        decision: What flags an image: its `"score"`; its `"pixels"`, if one is
            higher than in normal images; or `"either"`.

    Example:
    >>> CalibrationConfig(quantile=0.95).pixel_quantile
    0.999
    """

    quantile: PositiveShare = 0.99
    pixel_quantile: PositiveShare = 0.999
    decision: Literal["score", "pixels", "either"] = "score"


class EvaluationConfig(_OpenSection):
    """Section `[evaluation]`: how scores and masks become metrics.

    All but `masks` are for videos.

    Attributes:
        normalization: `"per_video"` brings the scores of each test video to
            [0, 1] by its own extremes, as most papers do; `"none"` takes the
            calibrated scores, which need no look ahead; `"raw"` those before
            calibration, whose zero is another one where they are smoothed.
        smoothing: Filter over the frames of a video: `"none"`, `"median"`,
            `"mean"` or `"gaussian"`.
        smoothing_size: Frames under the filter (odd), or the standard deviation
            of the Gaussian in frames.
        single_class: What macro AUC does with videos of one class:
            `"sentinel"` or `"skip"`; see `keras_sspcab.metrics.macro_auc`.
        region_smoothing: Standard deviation of the Gaussian over anomaly maps
            before regions are cut from them, as a share of their height.
        region_levels: Number of levels at which regions are cut, each twice
            the one before; the first is half of the
            `calibration.pixel_quantile` of smoothed normal maps.
        region_min_area: Pixels of the map that a region has at least.
        iou_threshold: Overlap from which on a region finds an anomaly.
        track_threshold: Share of a track from which on it is found.
        masks: Of images: how masks are resized; `"nearest"`, by the nearest
            neighbor without losing a defect, or `"whole"`, so that only pixels
            that are defective as a whole count.
        options: All other keys; see the host's `evaluation_options`.

    Example:
    >>> EvaluationConfig(smoothing="median").smoothing_size
    17.0
    """

    normalization: Literal["per_video", "none", "raw"] = "per_video"
    smoothing: Literal["none", "median", "gaussian", "mean"] = "none"
    smoothing_size: Annotated[float, Field(gt=0)] = 17.0
    single_class: Literal["sentinel", "skip"] = "sentinel"
    region_smoothing: Share = 0.03
    region_levels: Positive = 4
    region_min_area: Positive = 4
    iou_threshold: PositiveShare = 0.1
    track_threshold: PositiveShare = 0.1
    masks: Literal["nearest", "whole"] = "nearest"

    @field_validator("smoothing_size")
    @classmethod
    def _check_smoothing_size(cls, value: float, info: ValidationInfo) -> float:
        if info.data.get("smoothing") != "gaussian" and value % 2 != 1:
            raise ValueError("an odd number of frames for median and mean")
        return value


class TrackingConfig(_Section):
    """Section `[tracking]`: where a run is logged. It changes no result.

    Attributes:
        loggers: `"tensorboard"` writes files into `logs/` of the run folder;
            `"mlflow"` and `"wandb"` (Weights & Biases) are told of settings,
            metrics, report, model and exports, and need the extra `[tracking]`.
        project: Name of the experiment in MLflow, of the project in Weights &
            Biases; empty for that of their environment, or `keras-sspcab`.
        mlflow_uri: Address of MLflow's server or database; empty for that of
            MLflow's environment.
        upload_model: Whether model and exports are uploaded as well.

    Example:
    >>> TrackingConfig(loggers="mlflow").loggers
    ('mlflow',)
    """

    loggers: Loggers = ("tensorboard",)
    project: str = ""
    mlflow_uri: str = ""
    upload_model: bool = True


class Config(_Section):
    """The whole configuration of a run; see the sections.

    Example:
    >>> config = Config(training=TrainingConfig(epochs=3))
    >>> config.training.epochs, config.data.image_size
    (3, (256, 256))
    >>> config.to_dict()["model"]
    {'name': 'multiscale_padim'}
    """

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    objects: ObjectsConfig = ObjectsConfig()
    inspection: InspectionConfig = InspectionConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def needs_inspection(self) -> bool:
        """Whether the host is put into an `InspectionModel`."""
        return self.inspection.is_used or self.data.fit == "pad"

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Returns the sections as plain values, as they stand in a file."""
        return replace_values(
            self.model_dump(), lambda value: "none" if value is None else value
        )


def replace_values(value: Any, replace: Callable[[Any], Any]) -> Any:
    """Replaces the values in dictionaries and lists; tuples become lists."""
    if isinstance(value, dict):
        return {k: replace_values(part, replace) for k, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [replace_values(part, replace) for part in value]
    return replace(value)
