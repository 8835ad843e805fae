"""Compares the forms of masked convolutions in exported graphs.

    python -m benchmarks.export_forms --size 256 --kernel-size 1

Every form gives the same numbers; this prints, for each runtime, the size of
the file, the number of operations and the time for one image on one thread (the
fastest of many rounds, the forms taking turns). The model is the plain
auto-encoder with blocks at all three places.
"""

import argparse
import pathlib
import tempfile
import time

import numpy as np
import tensorflow as tf

from benchmarks.common import onnx_session
from keras_sspcab.applications import AutoEncoder
from keras_sspcab.export import onnx as onnx_export
from keras_sspcab.export import saved_model, tflite
from keras_sspcab.export.inference import Inference
from keras_sspcab.export.precision import Graph
from keras_sspcab.preprocessing import Preprocessing

FORMS = ("dilated", "stacked", "shifted", "masked")


def tensorflow_runner(inference, form):
    frozen = inference.freeze(form=form)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        saved_model.write_saved_model(frozen, None, Preprocessing(), path)
        loaded = tf.saved_model.load(folder)
        size = (path / "saved_model.pb").stat().st_size
    function = loaded.signatures["serving_default"]
    count = len(frozen.function.graph.get_operations())

    def run(image):
        function(image=tf.constant(image))["anomaly_score"].numpy()

    return run, size, count, loaded


def onnx_runner(inference, form):
    proto = onnx_export.convert(inference.freeze(form=form), opset=17)
    content = proto.SerializeToString()
    session = onnx_session(content, 1)

    def run(image):
        session.run(None, {"image": image})

    return run, len(content), len(proto.graph.node), session


def litert_runner(inference, form):
    from ai_edge_litert.interpreter import Interpreter

    content = tflite.convert(inference.freeze(1, form))
    interpreter = Interpreter(model_content=content, num_threads=1)
    signature = interpreter.get_signature_runner("serving_default")

    def run(image):
        signature(image=image)

    count = len(Graph.read(content).operations)
    return run, len(content), count, interpreter


def fastest(runners, image, rounds):
    """Milliseconds of each runner."""
    times = dict.fromkeys(runners, np.inf)
    for _ in range(rounds):
        for name, (run, *_) in runners.items():
            start = time.perf_counter()
            run(image)
            times[name] = min(times[name], time.perf_counter() - start)
    return {name: 1000 * value for name, value in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--kernel-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    size = arguments.size
    print("| runtime | sizes | form | kB | operations | ms |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    image = np.random.default_rng(0).random((1, size, size, 1), "float32")
    for sizes, side in (("fixed", size), ("open", None)):
        model = AutoEncoder(
            (side, side, 1),
            sspcab=("early", "middle", "late"),
            sspcab_options={"kernel_size": arguments.kernel_size},
        )
        inference = Inference(model, allow_uncalibrated=True)
        for runtime, build in (
            ("TensorFlow", tensorflow_runner),
            ("ONNX Runtime", onnx_runner),
            ("LiteRT", litert_runner),
        ):
            if side is None and build is litert_runner:
                continue  # a TFLite file has fixed sizes
            runners = {form: build(inference, form) for form in FORMS}
            times = fastest(runners, image, arguments.rounds)
            for form, (_, num_bytes, count, _) in runners.items():
                print(
                    f"| {runtime} | {sizes} | {form} | {num_bytes / 1e3:.0f} "
                    f"| {count} | {times[form]:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
