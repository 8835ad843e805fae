"""Asks an exported file about images, without TensorFlow and Keras.

    python detect.py screws.onnx photo.png ...

NumPy, Pillow and a runtime are all it needs: onnxruntime for .onnx files,
ai-edge-litert for .tflite and openvino for .xml (with its .bin beside it). The
.parity.json beside the file says how images are read; keep them together.
"""

import json
import os
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


def read_fit(path):
    """Returns what becomes of the aspect ratio: stretch, pad or crop."""
    report = f"{path}.parity.json"
    if not os.path.exists(report):
        return "stretch"
    with open(report, encoding="utf-8") as file:
        how = json.load(file)["preprocessing"]
    if how["resize"] != "bilinear":
        sys.exit(f"{path} takes images resized by {how['resize']}")
    if how["white_level"] != 65535:
        sys.exit(f"{path} takes images of 16 bits, which this does not read")
    return how["fit"]


def largest_inside(room, ratio):
    """Returns the largest height and width of a ratio that fit into a room."""
    (height, width), (rows, columns) = room, ratio
    inside = (2 * width * rows + columns) // (2 * columns)
    across = (2 * height * columns + rows) // (2 * rows)
    return min(height, max(inside, 1)), min(width, max(across, 1))


def read_image(path, shape, fit):
    """Returns an image as in training: upright, resized, from 0 to 1."""
    height, width, channels = shape
    with Image.open(path) as file:
        if file.mode.startswith(("I", "F")):
            sys.exit(f"{path} has 16 bits or more a value; 8 are read here")
        image = ImageOps.exif_transpose(file)
        image = image.convert("L" if channels == 1 else "RGB")
    source = image.height, image.width
    # Files that take any size name no numbers.
    known = all(isinstance(side, (int, np.integer)) for side in shape[:2])
    room = (height, width) if known and -1 not in (height, width) else source
    filled = room
    if fit == "pad":
        filled = largest_inside(room, source)
    elif fit == "crop":
        rows, columns = largest_inside(source, room)
        left, top = (image.width - columns) // 2, (image.height - rows) // 2
        image = image.crop((left, top, left + columns, top + rows))
    # In floats: nothing is rounded.
    planes = [
        plane.convert("F").resize(filled[::-1], Image.Resampling.BILINEAR)
        for plane in image.split()
    ]
    top, left = (room[0] - filled[0]) // 2, (room[1] - filled[1]) // 2
    # Padding is known by this gray, which no file of 8 bits has.
    pixels = np.full((1, *room, channels), 0.5, "float32")
    rows, columns = filled
    pixels[0, top : top + rows, left : left + columns] = (
        np.stack(planes, axis=-1) / 255
    )
    return pixels


if __name__ == "__main__":
    model, *photos = sys.argv[1:]
    shape, run = load(model)
    fit = read_fit(model)
    for photo in photos:
        outputs = run(read_image(photo, shape, fit))
        score, anomaly_map = outputs["anomaly_score"], outputs["anomaly_map"]
        row, column = np.unravel_index(
            anomaly_map[0].argmax(), anomaly_map.shape[1:]
        )
        print(
            f"{photo}: score {score[0]:.6f}, "
            f"anomalous: {'yes' if outputs['is_anomalous'][0] else 'no'}, "
            f"highest at row {row}, column {column}: {anomaly_map.max():.6f}"
        )
