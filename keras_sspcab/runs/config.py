"""What a run is made of: the sections of its `config.toml`."""

import dataclasses
from typing import Any

# The numbers to tune for a kind of model, by section: they apply where neither
# the file nor the command line says otherwise.
MODEL_DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    # Small defects in large images: the largest smoothed error counts.
    "autoencoder": {
        "model": {"sspcab": "late", "pooling": "max", "smoothing": 11}
    },
    # An eighth of the paper's width: a step takes seconds on a CPU.
    "draem": {
        "data": {"patch_size": 0},
        "model": {"base_width": 16},
        "training": {"epochs": 100, "batch_size": 8},
    },
    "cutpaste": {
        "data": {"patch_size": 0},
        "model": {"base_width": 16},
        "training": {"epochs": 100, "batch_size": 16},
    },
    # Frames of video; the batch is the papers'.
    "future_frame": {
        "data": {"patch_size": 0},
        "model": {"base_width": 8},
        "training": {"epochs": 20, "batch_size": 4},
    },
    "mnad": {
        "data": {"patch_size": 0},
        "model": {"base_width": 8},
        "training": {"epochs": 20, "batch_size": 4},
    },
}

# What `demo` does: arguments of `write_texture_folder`, and settings that apply
# to textures, and to all data.
DEMO: dict[str, dict[str, Any]] = {
    "texture": {},
    "texture_settings": {"data.image_size": 128, "data.channels": 1},
    "settings": {"training.epochs": 20},
}
DEMO_FAST: dict[str, dict[str, Any]] = {
    "texture": {
        "image_size": 64,
        "num_train": 24,
        "num_test_good": 8,
        "num_test_defective": 10,
    },
    "texture_settings": {"data.image_size": 64, "data.channels": 1},
    "settings": {
        "data.patch_size": 32,
        "data.patches_per_image": 2,
        "training.epochs": 2,
    },
}

LAYOUTS = ("auto", "mvtec", "plain")
CACHES = ("auto", "memory", "disk", "none")
ON_ERROR = ("raise", "skip")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key."""


def _require(condition: bool, key: str, rule: str, value: Any) -> None:
    if not condition:
        raise ConfigError(f"`{key}` must be {rule}. Received: {value!r}")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Section `[data]`: which images, and how they are read.

    Attributes:
        path: Folder of the images.
        layout: `"mvtec"` (train/good, test/DEFECT, ground_truth/DEFECT),
            `"plain"` (a folder of normal images) or `"auto"`.
        image_size: `(height, width)` that images are resized to; one number
            for squares.
        channels: 1 reads images as grey, 3 as RGB.
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
            memory for up to 1 GiB and else none.
    """

    path: str = ""
    layout: str = "auto"
    image_size: tuple[int, int] = (256, 256)
    channels: int = 3
    patch_size: int = 64
    patches_per_image: int = 8
    flip: bool = False
    validation_fraction: float = 0.1
    validation_seed: int = 0
    on_error: str = "raise"
    cache: str = "auto"

    def __post_init__(self) -> None:
        _require(
            self.layout in LAYOUTS,
            "data.layout",
            f"one of {list(LAYOUTS)}",
            self.layout,
        )
        _require(
            min(self.image_size) >= 1,
            "data.image_size",
            "positive",
            list(self.image_size),
        )
        _require(
            self.channels in (1, 3), "data.channels", "1 or 3", self.channels
        )
        _require(
            0 <= self.patch_size <= min(self.image_size),
            "data.patch_size",
            "at least 0 (whole images) and at most the image size "
            f"{list(self.image_size)}",
            self.patch_size,
        )
        _require(
            self.patches_per_image >= 1,
            "data.patches_per_image",
            "at least 1",
            self.patches_per_image,
        )
        _require(
            0 < self.validation_fraction < 1,
            "data.validation_fraction",
            "between 0 and 1 (the thresholds are measured on this part)",
            self.validation_fraction,
        )
        _require(
            0 <= self.validation_seed < 2**32,
            "data.validation_seed",
            "from 0 to 2^32 - 1",
            self.validation_seed,
        )
        _require(
            self.on_error in ON_ERROR,
            "data.on_error",
            f"one of {list(ON_ERROR)}",
            self.on_error,
        )
        _require(
            self.cache in CACHES,
            "data.cache",
            f"one of {list(CACHES)}",
            self.cache,
        )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Section `[model]`: a host and the arguments of its constructor.

    Attributes:
        name: One of the names in `keras_sspcab.applications.APPLICATIONS`.
        options: All other keys of the section, passed to the host. `"none"`
            stands for None, which TOML lacks.
    """

    name: str = "autoencoder"
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
            _require(value >= 1, f"training.{name}", "at least 1", value)
        for name in (
            "learning_rate",
            "checkpoint_every_steps",
            "checkpoint_every_seconds",
        ):
            value = getattr(self, name)
            _require(value >= 0, f"training.{name}", "at least 0", value)
        _require(
            0 <= self.seed < 2**32,
            "training.seed",
            "from 0 to 2^32 - 1",
            self.seed,
        )
        _require(
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
            _require(
                0 < value <= 1,
                f"calibration.{name}",
                "above 0 and at most 1",
                value,
            )


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole configuration of a run; see the sections."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    calibration: CalibrationConfig = CalibrationConfig()

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
