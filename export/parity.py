"""Compares an artifact with the model that it was made from."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_sspcab.checks import standardize_choice
from keras_sspcab.data import decode_and_resize
from keras_sspcab.data.batching import images_at_once
from keras_sspcab.export.images import collect_images
from keras_sspcab.export.inference import Inference
from keras_sspcab.export.runners import SavedModelRunner, load_runner
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.scoring import Calibration

#: Largest relative difference allowed, by the precision of the artifact. The
#: README says what has been measured.
TOLERANCES = {
    "float32": 1e-4,
    "float16": 1e-2,
    "bfloat16": 0.1,
    "int8": 0.25,
}

#: Single pixels of a map may be off by this many times more: unlike scores they
#: are no mean or maximum of many.
PIXEL_FACTOR = 4.0

#: Share of the flags that may differ, and a single one always: within a wide
#: tolerance, as in int8, all of them could. A larger tolerance allows more.
MAX_FLAGS = 0.25

#: How many images a check looks at, at most.
MAX_IMAGES = 64

_BATCH_SIZE = 8

# Outputs that are values of single pixels.
_OF_PIXELS = ("anomaly_map", "region_scores")

# What differences are measured in.
ZSCORE_UNIT = "standard deviations of normal images"
VALUE_UNIT = "units of the output"
SHARE_UNIT = "share of values that differ"


class ExportMismatchError(ValueError):
    """An artifact does not compute what its model computes.

    Attributes:
        result: The comparison.

    Example:
    >>> issubclass(ExportMismatchError, ValueError)
    True
    """

    def __init__(self, result: "ParityResult") -> None:
        super().__init__(
            f"The exported {result.artifact} differs from the model by more "
            f"than {result.precision} explains:\n{result.summary()}\n"
            "Nothing has been written. From Python, `tolerance=` allows more."
        )
        self.result = result

    def __reduce__(self) -> Any:
        return type(self), (self.result,)


@dataclasses.dataclass(frozen=True)
class OutputDifference:
    """How far one output of an artifact is from the model's.

    The largest difference is absolute, in `unit`. The relative one must not
    exceed the tolerance. For calibrated scores and maps it is a share of the
    largest of one standard deviation, the value itself and the mean of raw
    values; for other numbers, of the largest value.
    """

    max_difference: float
    unit: str
    relative_difference: float
    tolerance: float

    @property
    def passes(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.relative_difference <= self.tolerance


@dataclasses.dataclass
class ParityResult:
    """The comparison of an artifact with its model.

    Attributes:
        artifact: Name of the file, or of the folder.
        precision: Precision of the artifact.
        tolerance: Largest relative difference allowed for scores.
        num_images: How many images were compared.
        outputs: The differences, by name of the output. Those of the
            signature for encoded images begin with `serving_bytes/`.
        flags_compared: Images whose flags were compared, counted in each
            signature.
        flags_differing: Those of them that only one of the two flags.
        flags_beyond_tolerance: Those of them whose score is further from the
            threshold than the tolerance allows.

    Example:
    >>> score = OutputDifference(2e-6, "units of the output", 1e-6, 1e-4)
    >>> result = ParityResult("1", "float32", 1e-4, 8, {"score": score})
    >>> result.passes
    True
    """

    artifact: str
    precision: str
    tolerance: float
    num_images: int
    outputs: dict[str, OutputDifference] = dataclasses.field(
        default_factory=dict
    )
    flags_compared: int = 0
    flags_differing: int = 0
    flags_beyond_tolerance: int = 0

    @property
    def passes(self) -> bool:
        """Whether the artifact may be used in place of the model.

        Outputs are within their tolerance, flags differ within it only, and no
        more than one of them or a quarter.
        """
        return (
            self.flags_beyond_tolerance == 0
            and self.flags_differing
            <= max(1, self._max_flags * self.flags_compared)
            and all(output.passes for output in self.outputs.values())
        )

    @property
    def _max_flags(self) -> float:
        return min(1.0, max(MAX_FLAGS, self.tolerance))

    def summary(self) -> str:
        """Returns one line for each output."""
        lines = [
            f"  {name}: {output.max_difference:.3g} {output.unit} "
            f"({output.relative_difference:.3g} relative, "
            f"{output.tolerance:g} allowed)"
            for name, output in self.outputs.items()
        ]
        lines.append(
            f"  {self.flags_differing} of {self.flags_compared} flags differ "
            f"({self._max_flags:.0%} allowed), {self.flags_beyond_tolerance} "
            "beyond tolerance"
        )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, for JSON."""
        return {**dataclasses.asdict(self), "passes": self.passes}


def check_parity(
    model: keras.Model,
    path: Any,
    images: Any,
    tolerance: float | None = None,
    precision: str = "float32",
    image_size: Sequence[int] | None = None,
) -> ParityResult:
    """Runs model and artifact on the same images and compares the outputs.

    The model runs as in `model.predict`, the artifact in its own runtime. A
    SavedModel that takes encoded images is also given these as PNG files.

    Args:
        model: The model that was exported.
        path: The folder of a SavedModel, a `.tflite`, `.onnx` or (OpenVINO)
            `.xml` file.
        images: Real images: an array, or an iterable of batches; the first 64
            count.
        tolerance: Largest relative difference allowed, see `OutputDifference`;
            four times that for single pixels of the anomaly map. None takes
            that of the precision: 1e-4, 1e-2, 0.1 or 0.25. Models that compute
            in 16 bits themselves get the tolerance of these.
        precision: Precision of the artifact: `"float32"`, `"float16"`,
            `"bfloat16"` or `"int8"`.
        image_size: Height and width that the artifact was made for, where the
            model takes any size. A SavedModel resizes encoded images to it;
            without it only float images are compared.

    Returns:
        The result; nothing is raised where the two differ.

    Raises:
        ValueError: If there is no artifact, no image, or they do not fit.

    Example:
    >>> import tempfile
    >>> from keras_sspcab.export import export_saved_model
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU()])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = export_saved_model(model, folder, check=False).path
    ...     check_parity(model, path, np.ones((3, 2))).passes
    True
    """
    precision = standardize_choice(precision, tuple(TOLERANCES), "precision")
    path = pathlib.Path(path)
    runner = load_runner(path)
    takes_files = isinstance(runner, SavedModelRunner)
    inference = Inference(
        model,
        runner.output_names,
        allow_uncalibrated=True,
        image_size=None if takes_files else image_size,
    )
    if tolerance is None:
        tolerance = max(
            TOLERANCES[precision],
            # The model itself may compute in fewer bits than the artifact.
            *(
                TOLERANCES.get(layer.dtype_policy.compute_dtype, 0.0)
                for layer in model._flatten_layers()
            ),
        )
    inputs = collect_images(inference, images, MAX_IMAGES)
    count = len(next(iter(inputs.values())))
    result = ParityResult(path.name, precision, tolerance, count)
    comparison = Comparison(
        model.calibration if inference.is_detector else None, result
    )
    reference = _in_batches(inference.predict, inputs)
    comparison.add(reference, _in_batches(runner, inputs))
    if "threshold" in runner.option_names:
        few = {name: array[:_BATCH_SIZE] for name, array in inputs.items()}
        comparison.add_options(
            {name: array[:_BATCH_SIZE] for name, array in reference.items()},
            lambda **options: runner(**few, **options),
        )
    if isinstance(runner, SavedModelRunner) and runner.takes_encoded_images:
        height, width = inference.image_size(image_size)
        if height is not None and width is not None:
            files, decoded = _encode(inference, inputs, (height, width))
            comparison.add(
                _in_batches(inference.predict, decoded),
                _in_batches(runner.run_encoded, files),
                prefix="serving_bytes/",
            )
    return result


class Comparison:
    """Collects in a result how outputs of an artifact differ from its model's.

    `calibration` is that of an `AnomalyModel`, None of another model.
    """

    def __init__(
        self, calibration: Calibration | None, result: ParityResult
    ) -> None:
        self._is_detector = calibration is not None
        self._calibration = calibration or Calibration()
        # Of one image there is no standard deviation.
        has_scale = self._calibration.num_images > 1
        self._zscores = ("anomaly_score", *_OF_PIXELS) if has_scale else ()
        self._result = result

    def add(
        self,
        reference: dict[str, np.ndarray],
        actual: dict[str, np.ndarray],
        prefix: str = "",
    ) -> None:
        """Compares the outputs of a run, by name."""
        for name, expected in reference.items():
            received = actual[name]
            is_float = np.issubdtype(expected.dtype, np.floating)
            if is_float and not np.isfinite(expected).all():
                raise ValueError(
                    f"The model gives {name} with values that are NaN or "
                    "infinite, so that nothing can be compared with it. Has "
                    "its training diverged?"
                )
            if received.shape != expected.shape:
                raise ValueError(
                    f"The artifact gives {name} of shape {received.shape}, "
                    f"the model of shape {expected.shape}."
                )
            if name == "is_anomalous" and self._is_detector:
                differs = expected != received
                self._result.flags_compared += differs.size
                self._result.flags_differing += int(differs.sum())
                self._result.flags_beyond_tolerance += self._count_sure(
                    reference, differs, self._calibration
                )
            elif name != "region_is_anomalous":  # is part of the former
                self._result.outputs[prefix + name] = self._difference(
                    name, expected, received
                )

    def add_options(
        self,
        reference: dict[str, np.ndarray],
        run: Callable[..., dict[str, np.ndarray]],
    ) -> None:
        """Compares the flags at other thresholds; `run` takes these by name."""
        if "is_anomalous" not in reference or not self._explains(reference):
            return
        scores = reference["anomaly_score"]
        options = {"threshold": np.median(scores), "sensitivity": 0.75}
        for name, value in options.items():
            calibration = self._calibration.adjusted(**{name: float(value)})
            received = run(**{name: np.full(len(scores), value, "float32")})
            differs = (
                _decide(calibration, reference) != received["is_anomalous"]
            )
            count = self._count_sure(reference, differs, calibration)
            self._result.flags_differing += count
            self._result.flags_beyond_tolerance += count

    def _decides_by(self) -> list[str]:
        """The outputs besides the score that flags follow from."""
        parts = self._calibration.products or (self._calibration,)
        by_pixels = any(part.decision != "score" for part in parts)
        return ["anomaly_map"] * by_pixels + ["region_scores"] * bool(
            self._calibration.regions
        )

    def _explains(self, outputs: Mapping[str, np.ndarray]) -> bool:
        """Whether flags can be computed from the outputs."""
        needed = {"anomaly_score", *self._decides_by()}
        if self._calibration.products:
            needed.add("product_index")
        return needed <= set(outputs)

    def _count_sure(
        self,
        reference: dict[str, np.ndarray],
        differs: np.ndarray,
        calibration: Calibration,
    ) -> int:
        """Counts flags that differ by more than the tolerance explains."""
        if self._explains(reference):
            names = ["anomaly_score", *self._decides_by()]
            # Sure is a flag that is the same at both ends of what is allowed.
            low, high = (
                _decide(
                    calibration,
                    reference
                    | {
                        n: reference[n]
                        + sign * self._allowed(n) * self._scale(n, reference[n])
                        for n in names
                    },
                )
                for sign in (-1, 1)
            )
            differs = differs & (low == high)
        return int(differs.sum())

    def _allowed(self, name: str) -> float:
        is_pixel = self._is_detector and name in _OF_PIXELS
        return self._result.tolerance * (PIXEL_FACTOR if is_pixel else 1.0)

    def _difference(
        self, name: str, expected: np.ndarray, received: np.ndarray
    ) -> OutputDifference:
        if not np.issubdtype(expected.dtype, np.floating):
            share = float(np.mean(expected != received))
            return OutputDifference(
                share, SHARE_UNIT, share, self._result.tolerance
            )
        expected = expected.astype("float64")
        with np.errstate(invalid="ignore"):
            difference = np.abs(expected - received)
        # What is not a number differs in full.
        difference[~np.isfinite(difference)] = np.inf
        relative = difference / self._scale(name, expected)
        return OutputDifference(
            max_difference=float(difference.max(initial=0.0)),
            unit=ZSCORE_UNIT if name in self._zscores else VALUE_UNIT,
            relative_difference=float(relative.max(initial=0.0)),
            tolerance=self._allowed(name),
        )

    def _scale(self, name: str, expected: np.ndarray) -> np.ndarray:
        """What a difference of `name` is divided by."""
        size = np.abs(expected)
        if name not in self._zscores:
            return np.asarray(size.max(initial=0.0) or 1.0)
        # The raw value is `z + mean / std` standard deviations: rounding it
        # moves z by a share of that, however small z is.
        values = self._calibration
        parts = values.products or (values,)
        offsets = [part.score_mean / part.score_std for part in parts]
        if name == "anomaly_map":
            offsets = [part.map_mean / part.map_std for part in parts]
        offset = np.abs(offsets).max()
        if name == "region_scores":
            offset = np.abs(
                [part.score_mean / part.score_std for part in values.regions]
            )
        return np.maximum(np.maximum(1.0, size), offset)


def _decide(
    calibration: Calibration, outputs: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Returns the flags that follow from the outputs."""
    if calibration.products:
        index = outputs["product_index"]
        flags = index < 0
        for number, part in enumerate(calibration.products):
            flags = np.where(index == number, _decide(part, outputs), flags)
        return flags
    flags = calibration.decide(
        outputs["anomaly_score"], outputs.get("anomaly_map")
    )
    for number, part in enumerate(calibration.regions):
        flags = flags | part.decide(outputs["region_scores"][:, number], None)
    return flags


def _in_batches(
    function: Callable[..., dict[str, np.ndarray]],
    inputs: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    first = next(iter(inputs.values()))
    count, size = len(first), _BATCH_SIZE
    if first.ndim > 3:
        size = images_at_once(first.shape[-3:-1])
    parts = [
        function(**{n: a[start : start + size] for n, a in inputs.items()})
        for start in range(0, count, size)
    ]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _encode(
    inference: Inference, inputs: dict[str, np.ndarray], size: tuple[int, int]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns images as PNG files, and what they are when read and resized."""
    import tensorflow as tf

    ((name, images),) = inputs.items()
    white, dtype = inference.preprocessing.white_level, "uint16"
    if white == Preprocessing.white_level:
        white, dtype = 255, "uint8"
    pixels = np.round(images * white).astype(dtype)
    files = [tf.io.encode_png(image).numpy() for image in pixels]
    decoded = [
        decode_and_resize(
            file, size, images.shape[-1], inference.preprocessing
        ).numpy()
        for file in files
    ]
    return {"files": np.array(files)}, {name: np.stack(decoded)}
