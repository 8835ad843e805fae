"""Asks an exported file about images, without TensorFlow and Keras.

    python detect.py screws.onnx photo.png ...

NumPy, Pillow and a runtime are all it needs: onnxruntime for .onnx files,
ai-edge-litert for .tflite and openvino for .xml (with its .bin beside it).
"""

import sys

import numpy as np
from PIL import Image, ImageOps


def load(path):
    """Returns the shape of an image, and a function from images to outputs."""
    if path.endswith(".onnx"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # It warns that thresholds, which may be overridden, are no constants.
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options)
        names = [output.name for output in session.get_outputs()]
        shape = session.get_inputs()[0].shape

        def run(image):
            outputs = session.run(names, {"image": image})
            return dict(zip(names, outputs, strict=True))

    elif path.endswith(".tflite"):
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(path).get_signature_runner("serving_default")
        shape = runner.get_input_details()["image"]["shape"]

        def run(image):
            return runner(image=image)

    else:
        import openvino

        # "AUTO" chooses a device; without the hint one may compute in 16 bits.
        hint = {"INFERENCE_PRECISION_HINT": "f32"}
        model = openvino.Core().compile_model(path, "CPU", hint)
        axes = model.input("image").partial_shape
        shape = [axis.get_length() if axis.is_static else None for axis in axes]

        def run(image):
            outputs = model({"image": image})
            return {o.get_any_name(): outputs[o] for o in model.outputs}

    return shape[1:], run


def read_image(path, height, width, channels):
    """Returns an image as in training: upright, resized, from 0 to 1."""
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        image = image.convert("L" if channels == 1 else "RGB")
    # In floats: nothing is rounded.
    planes = [
        plane.convert("F").resize((width, height), Image.Resampling.BILINEAR)
        for plane in image.split()
    ]
    return np.stack(planes, axis=-1)[np.newaxis].astype("float32") / 255


if __name__ == "__main__":
    model, *photos = sys.argv[1:]
    shape, run = load(model)
    for photo in photos:
        outputs = run(read_image(photo, *shape))
        score, anomaly_map = outputs["anomaly_score"], outputs["anomaly_map"]
        row, column = np.unravel_index(anomaly_map[0].argmax(), shape[:2])
        print(
            f"{photo}: score {score[0]:.6f}, "
            f"anomalous: {'yes' if outputs['is_anomalous'][0] else 'no'}, "
            f"highest at row {row}, column {column}: {anomaly_map.max():.6f}"
        )
