"""Runs exported artifacts, each in the runtime that it is made for."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from keras_sspcab.imports import import_optional
from keras_sspcab.optional_inputs import OPTIONS_SUFFIX, left_out
from keras_sspcab.preprocessing import Preprocessing


class Runner(Protocol):
    """An artifact that is ready to run, on batches of any size.

    Its `option_names` are those of inputs that may be left out.
    """

    input_names: tuple[str, ...]
    option_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]: ...


def load_runner(path: Any) -> Runner:
    """Loads an artifact; what it is shows from its name.

    Args:
        path: Folder of a SavedModel (with `saved_model.pb` in it), or a
            `.tflite`, `.onnx` or (OpenVINO) `.xml` file.

    Returns:
        A function from arrays by name of the input to arrays by name of the
        output, for batches of any size. Optional inputs, of which it has the
        `option_names`, have a value for each image.

    Raises:
        ValueError: If there is no such artifact.
        ImportError: If the runtime is not installed.

    Example:
    >>> import tempfile
    >>> from keras_sspcab.export import export_saved_model
    >>> relu = keras.layers.ReLU(name="y")
    >>> model = keras.Sequential([keras.Input((2,)), relu])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = export_saved_model(model, folder, check=False).path
    ...     load_runner(path)(input=np.float32([[-1, 2]]))["y"]
    array([[0., 2.]], dtype=float32)
    """
    path = pathlib.Path(path)
    if (path / "saved_model.pb").is_file():
        return SavedModelRunner(path)
    if path.suffix == ".tflite" and path.is_file():
        return TFLiteRunner(path)
    if path.suffix == ".onnx" and path.is_file():
        return ONNXRunner(path)
    if path.suffix == ".xml" and path.is_file():
        return OpenVINORunner(path)
    raise ValueError(
        f"There is no artifact at {path}: neither a folder with "
        "`saved_model.pb` in it nor a `.tflite`, `.onnx` or `.xml` file. A "
        "SavedModel lies in the folder of its version, such as "
        "`models/screws/1`."
    )


_DEFAULT = "serving_default"
_WITH_OPTIONS = _DEFAULT + OPTIONS_SUFFIX


def _filled(
    inputs: dict[str, np.ndarray],
    names: Sequence[str],
    options: Mapping[str, str],
) -> dict[str, np.ndarray]:
    """Returns inputs and, for optional ones that are missing, defaults."""
    if not {*names} <= {*inputs} <= {*names, *options}:
        raise ValueError(
            f"The inputs are {', '.join(names)}, and optional ones "
            f"{', '.join(options) or 'none'}. Received: {', '.join(inputs)}"
        )
    rows = len(next(iter(inputs.values())))
    defaults = {
        name: np.full(rows, left_out(dtype), dtype)
        for name, dtype in options.items()
    }
    return {**defaults, **inputs}


class SavedModelRunner:
    """Runs the signatures of a SavedModel in TensorFlow."""

    def __init__(self, path: pathlib.Path) -> None:
        import tensorflow as tf

        # Kept: what the signatures refer to ends with it.
        self._loaded = tf.saved_model.load(str(path))
        function = self._loaded.signatures.get(_DEFAULT)
        if function is None:
            raise ValueError(
                f"{path} has no signature 'serving_default'. Export the model "
                "with `keras-sspcab export`"
            )
        specs = function.structured_input_signature[1]
        self.input_names = tuple(specs)
        self.input_shapes = [tuple(spec.shape) for spec in specs.values()]
        self.output_names = tuple(function.structured_outputs)
        self._options: dict[str, str] = {}
        with_options = self._loaded.signatures.get(_WITH_OPTIONS)
        if with_options is not None:
            specs = with_options.structured_input_signature[1]
            self._options = {
                name: spec.dtype.name
                for name, spec in specs.items()
                if name not in self.input_names
            }
        self.option_names = tuple(self._options)
        self.takes_encoded_images = "serving_bytes" in self._loaded.signatures
        # Those of before it had the default.
        stored = getattr(self._loaded, "preprocessing", None)
        self.preprocessing = Preprocessing(
            **({} if stored is None else json.loads(stored().numpy()))
        )

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        if set(inputs) == set(self.input_names):
            return self._run(_DEFAULT, inputs)
        return self._run(
            _WITH_OPTIONS, _filled(inputs, self.input_names, self._options)
        )

    def run_encoded(self, files: np.ndarray) -> dict[str, np.ndarray]:
        """Runs on the contents of image files."""
        return self._run("serving_bytes", {"image_bytes": files})

    def _run(
        self, signature: str, inputs: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        import tensorflow as tf

        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        results = self._loaded.signatures[signature](**tensors)
        return {name: value.numpy() for name, value in results.items()}


class TFLiteRunner:
    """Runs a TFLite file in LiteRT, in as many calls as its batch needs."""

    def __init__(self, path: pathlib.Path) -> None:
        litert = import_optional(
            "ai_edge_litert.interpreter", "TFLite files need LiteRT", "export"
        )
        interpreter = litert.Interpreter(model_path=str(path))
        names = interpreter.get_signature_list()
        self._runner = interpreter.get_signature_runner(
            _DEFAULT if _DEFAULT in names else None
        )
        details = self._runner.get_input_details()
        self.input_names = tuple(details)
        self._with_options, self._options = self._runner, {}
        if _WITH_OPTIONS in names:
            self._with_options = interpreter.get_signature_runner(_WITH_OPTIONS)
            more = self._with_options.get_input_details()
            self._options = {
                name: np.dtype(more[name]["dtype"]).name
                for name in more
                if name not in details
            }
        self.option_names = tuple(self._options)
        self.output_names = tuple(self._runner.get_output_details())
        self._batch_size = int(next(iter(details.values()))["shape"][0])

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        count = len(next(iter(inputs.values())))
        runner = self._runner
        if set(inputs) != set(self.input_names):
            runner = self._with_options
            inputs = _filled(inputs, self.input_names, self._options)
        parts: dict[str, list[np.ndarray]] = {n: [] for n in self.output_names}
        for start in range(0, count, self._batch_size):
            # The last call is filled up with its last image.
            index = np.arange(start, start + self._batch_size)
            index = np.minimum(index, count - 1)
            results = runner(**{n: v[index] for n, v in inputs.items()})
            for name, value in results.items():
                # A copy: the interpreter will write here again.
                parts[name].append(np.array(value))
        return {
            n: np.concatenate(values)[:count] for n, values in parts.items()
        }


class ONNXRunner:
    """Runs an ONNX file in ONNX Runtime, on the CPU."""

    def __init__(self, path: pathlib.Path) -> None:
        onnxruntime = import_optional(
            "onnxruntime", "ONNX files need ONNX Runtime", "export"
        )
        options = onnxruntime.SessionOptions()
        # It warns that what may be overridden is no constant.
        options.log_severity_level = 3
        self._session = session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.input_names = tuple(i.name for i in session.get_inputs())
        self.option_names = tuple(
            i.name for i in session.get_overridable_initializers()
        )
        self.output_names = tuple(o.name for o in self._session.get_outputs())

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        results = self._session.run(list(self.output_names), inputs)
        return dict(zip(self.output_names, results, strict=True))


class OpenVINORunner:
    """Runs a file of OpenVINO, on the CPU."""

    def __init__(self, path: pathlib.Path) -> None:
        openvino = import_optional(
            "openvino", "Files of OpenVINO need its runtime", "openvino"
        )
        # Where a CPU is faster in 16 bits, OpenVINO would choose these.
        self._model = openvino.Core().compile_model(
            str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        self.option_names: tuple[str, ...] = ()
        self.input_names = tuple(i.get_any_name() for i in self._model.inputs)
        self.output_names = tuple(o.get_any_name() for o in self._model.outputs)

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        results = self._model(inputs)
        return {name: np.array(results[name]) for name in self.output_names}
