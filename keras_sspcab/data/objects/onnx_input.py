"""Frames as a detection model takes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_choice
from keras_sspcab.data.decoding import standardize_size
from keras_sspcab.data.objects.boxes import opencv

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

    def __init__(
        self,
        session: Any,
        path: str,
        layout: str | None,
        input_size: Any,
        resize: str,
        colors: str,
        scale: float | None,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ) -> None:
        if layout is not None:
            layout = standardize_choice(layout, ("nchw", "nhwc"), "layout")
        self.resize = standardize_choice(
            resize, ("letterbox", "stretch"), "resize"
        )
        self.colors = standardize_choice(colors, ("rgb", "bgr"), "colors")
        self.scale = scale
        self.mean = _three_numbers(mean, "mean")
        self.std = _three_numbers(std, "std")

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
        if input_size is not None:
            self.size = standardize_size(input_size)
            pairs = zip(own, self.size, strict=True)
            if any(fixed not in (None, wanted) for fixed, wanted in pairs):
                raise ValueError(
                    f"The input of {path!r} has a size of its own, {own}. "
                    f"Received: input_size={input_size!r}"
                )

    @property
    def settings(self) -> list[Any]:
        """What the input depends on beside the model, as JSON."""
        return [
            self.size,
            self._channels_first,
            self.resize,
            self.colors,
            self.scale,
            self.mean,
            self.std,
        ]

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
        if self.resize == "stretch":
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
        values = pixels[..., ::-1] if self.colors == "bgr" else pixels
        if self._dtype != "uint8":
            values = values.astype("float32")
            values *= np.float32(1 / 255 if self.scale is None else self.scale)
            if self.mean is not None:
                values -= np.array(self.mean, "float32")
            if self.std is not None:
                values /= np.array(self.std, "float32")
        if self._channels_first:
            values = values.transpose(2, 0, 1)
        if self._has_batch:
            values = values[np.newaxis]
        return np.ascontiguousarray(values, self._dtype)


def _three_numbers(
    values: Sequence[float] | None, name: str
) -> tuple[float, ...] | None:
    if values is None:
        return None
    three = tuple(float(value) for value in values)
    if len(three) != 3 or (name == "std" and 0 in three):
        raise ValueError(
            f"The `{name}` argument must hold a number for each of three "
            f"colors, none of them 0 for `std`. Received: {name}={values!r}"
        )
    return three
