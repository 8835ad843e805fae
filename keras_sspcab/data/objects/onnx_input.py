"""Frames as a detection model takes them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sspcab.checks import standardize_choice
from keras_sspcab.data.objects.boxes import opencv

if TYPE_CHECKING:
    from keras_sspcab.data.objects.onnx_detector import OnnxDetector

# Gray of the margins, as YOLO is trained with.
_MARGIN = 114
# Sizes of inputs that a model leaves open are multiples of it.
_STRIDE = 32

_TYPES = {
    "tensor(uint8)": "uint8",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}


class ImageInput:
    """The input of a detection model; see `OnnxDetector` for the arguments."""

    def __init__(self, session: Any, options: "OnnxDetector") -> None:
        path, layout = options.path, options.layout
        if layout is not None:
            layout = standardize_choice(layout, ("nchw", "nhwc"), "layout")
        resize = standardize_choice(
            options.resize, ("letterbox", "stretch"), "resize"
        )
        self._keeps_aspect = resize == "letterbox"
        colors = standardize_choice(options.colors, ("rgb", "bgr"), "colors")
        self._is_bgr = colors == "bgr"
        self._options = options

        inputs = session.get_inputs()
        shapes = {node.name: node.shape for node in inputs}
        if len(inputs) != 1:
            raise ValueError(
                "A detector must have one input, an image. Received: "
                f"{path!r} with the inputs {shapes}"
            )
        (node,) = inputs
        shape = [size if isinstance(size, int) else None for size in node.shape]
        if node.type not in _TYPES or len(shape) not in (3, 4):
            raise ValueError(
                "A detector's input must be an image, uint8 or float, (1, 3, "
                "height, width) or (1, height, width, 3), maybe without the "
                f"first axis. Received: {path!r} with {node.type} {shapes}"
            )
        self.name = node.name
        self._dtype = _TYPES[node.type]
        self._has_batch = len(shape) == 4
        if self._has_batch and shape[0] not in (1, None):
            raise ValueError(
                "A detector must take one image at a time. Received: "
                f"{path!r} with {shapes}. Export it with a batch of 1."
            )
        first, middle, last = shape[-3:]
        if layout is None and (first == 3) == (last == 3):
            raise ValueError(
                f"The input of {path!r} does not tell which axis is that of "
                f'the colors. Received: {shapes}. State layout="nchw" or '
                'layout="nhwc".'
            )
        self._channels_first = (
            first == 3 if layout is None else layout == "nchw"
        )
        if (first if self._channels_first else last) not in (3, None):
            raise ValueError(
                "A detector must take color images. Received: "
                f"{path!r} with {shapes} and layout={layout!r}"
            )
        own = (middle, last) if self._channels_first else (first, middle)
        self.size: tuple[int | None, int | None] = own
        if options.input_size is not None:
            self.size = options.input_size
            pairs = zip(own, options.input_size, strict=True)
            if any(fixed not in (None, wanted) for fixed, wanted in pairs):
                raise ValueError(
                    f"The input of {path!r} has a size of its own, {own}. "
                    f"Received: input_size={options.input_size!r}"
                )

    def fit(
        self, frame: np.ndarray
    ) -> tuple[np.ndarray, tuple[int, int], np.ndarray, np.ndarray]:
        """Brings a frame, uint8 `(height, width, 3)`, to the input's form.

        Returns:
            The input, its height and width, and what takes x and y of corners
            `(4,)` from the frame to the input: a scale and then an offset.
        """
        cv2 = opencv()
        own = frame.shape[:2]
        left = top = 0
        if not self._keeps_aspect:
            height, width = (
                s or o for s, o in zip(self.size, own, strict=True)
            )
            inner = width, height
        else:
            height, width = (
                s or -(-o // _STRIDE) * _STRIDE
                for s, o in zip(self.size, own, strict=True)
            )
            scale = min(height / own[0], width / own[1])
            if None in self.size:
                # A free axis has room for the frame as it is.
                scale = min(1.0, scale)
            inner = (
                max(1, min(width, round(own[1] * scale))),
                max(1, min(height, round(own[0] * scale))),
            )
            left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
        if inner != own[::-1]:
            frame = cv2.resize(frame, inner)
        pixels = np.full((height, width, 3), _MARGIN, "uint8")
        pixels[top : top + inner[1], left : left + inner[0]] = frame
        scales = np.tile((inner[0] / own[1], inner[1] / own[0]), 2)
        offsets = np.tile((float(left), float(top)), 2)
        return self._to_tensor(pixels), (height, width), scales, offsets

    def _to_tensor(self, pixels: np.ndarray) -> np.ndarray:
        scale, mean, std = (
            getattr(self._options, name) for name in ("scale", "mean", "std")
        )
        values = pixels[..., ::-1] if self._is_bgr else pixels
        if self._dtype != "uint8":
            values = values.astype("float32")
            values *= np.float32(1 / 255 if scale is None else scale)
            if mean is not None:
                values -= np.array(mean, "float32")
            if std is not None:
                values /= np.array(std, "float32")
        if self._channels_first:
            values = values.transpose(2, 0, 1)
        if self._has_batch:
            values = values[np.newaxis]
        return np.ascontiguousarray(values, self._dtype)
