"""Runs exported artifacts, each in the runtime that it is made for."""

import json
import pathlib
from typing import Any, Protocol

import numpy as np

from keras_sspcab.imports import import_optional
from keras_sspcab.preprocessing import Preprocessing


class Runner(Protocol):
    """An artifact that is ready to run, on batches of any size."""

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]: ...


def load_runner(path: Any) -> Runner:
    """Loads an artifact; what it is shows from its name.

    Args:
        path: Folder of a SavedModel (with `saved_model.pb` in it), or a
            `.tflite` or `.onnx` file.

    Returns:
        A function from arrays by name of the input to arrays by name of the
        output, for batches of any size.

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
    raise ValueError(
        f"There is no artifact at {path}: neither a folder with "
        "`saved_model.pb` in it nor a `.tflite` or `.onnx` file. A SavedModel "
        "lies in the folder of its version, such as `models/screws/1`."
    )


class SavedModelRunner:
    """Runs the signatures of a SavedModel in TensorFlow."""

    def __init__(self, path: pathlib.Path) -> None:
        import tensorflow as tf

        # Kept: what the signatures refer to ends with it.
        self._loaded = tf.saved_model.load(str(path))
        function = self._loaded.signatures.get("serving_default")
        if function is None:
            raise ValueError(
                f"{path} has no signature 'serving_default'. Export the model "
                "with `keras-sspcab export`"
            )
        specs = function.structured_input_signature[1]
        self.input_names = tuple(specs)
        self.input_shapes = [tuple(spec.shape) for spec in specs.values()]
        self.output_names = tuple(function.structured_outputs)
        self.takes_encoded_images = "serving_bytes" in self._loaded.signatures
        # Those of before it had the default.
        stored = getattr(self._loaded, "preprocessing", None)
        self.preprocessing = Preprocessing(
            **({} if stored is None else json.loads(stored().numpy()))
        )

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        return self._run("serving_default", inputs)

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
        self._runner = interpreter.get_signature_runner()
        details = self._runner.get_input_details()
        self.input_names = tuple(details)
        self.output_names = tuple(self._runner.get_output_details())
        self._batch_size = int(next(iter(details.values()))["shape"][0])

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        count = len(next(iter(inputs.values())))
        parts: dict[str, list[np.ndarray]] = {n: [] for n in self.output_names}
        for start in range(0, count, self._batch_size):
            # The last call is filled up with its last image.
            index = np.arange(start, start + self._batch_size)
            index = np.minimum(index, count - 1)
            results = self._runner(**{n: v[index] for n, v in inputs.items()})
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
        self._session = onnxruntime.InferenceSession(
            str(path), providers=["CPUExecutionProvider"]
        )
        self.input_names = tuple(i.name for i in self._session.get_inputs())
        self.output_names = tuple(o.name for o in self._session.get_outputs())

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        results = self._session.run(list(self.output_names), inputs)
        return dict(zip(self.output_names, results, strict=True))
