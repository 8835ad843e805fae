"""Frames as a detection model takes them."""

import dataclasses
from typing import Any

import numpy as np

from keras_sspcab.data.objects._optional import opencv

#: Ways to bring a frame to the size of a model's input.
RESIZING = ("letterbox", "stretch")

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


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """What the input of a model is.

    Attributes:
        name: Its name in the graph.
        dtype: Type of its values.
        channels_first: Whether channels come before height and width.
        has_batch: Whether it has a batch axis.
        size: Height and width; None for those that may be any.
    """

    name: str
    dtype: str
    channels_first: bool
    has_batch: bool
    size: tuple[int | None, int | None]


def inspect_input(session: Any, path: str, layout: str | None) -> InputSpec:
    """Infers from its graph what the input of a model is.

    Args:
        session: An onnxruntime session.
        path: The model, for the error.
        layout: `"nchw"` or `"nhwc"`; None to infer it.

    Raises:
        ValueError: If the model does not take one image.
    """
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
            "height, width) or (1, height, width, 3), maybe without the first "
            f"axis. Received: {path!r} with {node.type} {shapes}"
        )
    has_batch = len(shape) == 4
    if has_batch and shape[0] not in (1, None):
        raise ValueError(
            "A detector must take one image at a time. Received: "
            f"{path!r} with {shapes}. Export it with a batch of 1."
        )
    axes = shape[-3:]
    if layout is None:
        is_color = [size == 3 for size in axes]
        if is_color[0] == is_color[2]:
            raise ValueError(
                f"The input of {path!r} does not tell which axis is that of "
                f'the colors. Received: {shapes}. State layout="nchw" or '
                'layout="nhwc".'
            )
        channels_first = is_color[0]
    else:
        channels_first = layout == "nchw"
    colors = axes[0] if channels_first else axes[2]
    if colors not in (3, None):
        raise ValueError(
            "A detector must take color images. Received: "
            f"{path!r} with {shapes} and layout={layout!r}"
        )
    height, width = axes[1:] if channels_first else axes[:2]
    return InputSpec(
        node.name, _TYPES[node.type], channels_first, has_batch, (height, width)
    )


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A frame at the size of the input, and the way back.

    Attributes:
        pixels: uint8 array `(height, width, 3)`.
        scale: Pixels of the input a pixel of the frame, in x and in y.
        offset: Where the frame begins in the input, in x and in y.
    """

    pixels: np.ndarray
    scale: tuple[float, float]
    offset: tuple[float, float]

    def to_frame(self, corners: np.ndarray) -> np.ndarray:
        """Takes corners `(n, 4)`, x and y twice, back to the frame."""
        return (corners - np.tile(self.offset, 2)) / np.tile(self.scale, 2)


def fit_to_input(
    frame: np.ndarray, size: tuple[int | None, int | None], resizing: str
) -> Fitted:
    """Resizes a frame to the size of an input, with margins for letterboxes.

    Args:
        frame: uint8 array `(height, width, 3)`.
        size: Height and width; None stands for the frame's, rounded up to a
            multiple of 32 for letterboxes.
        resizing: `"letterbox"` keeps the aspect ratio, `"stretch"` does not.
    """
    cv2 = opencv()
    own = frame.shape[:2]
    if resizing == "stretch":
        height, width = (s or o for s, o in zip(size, own, strict=True))
        pixels = frame
        if own != (height, width):
            pixels = cv2.resize(frame, (width, height))
        return Fitted(pixels, (width / own[1], height / own[0]), (0.0, 0.0))
    height, width = (
        s or -(-o // _STRIDE) * _STRIDE for s, o in zip(size, own, strict=True)
    )
    scale = min(height / own[0], width / own[1])
    if None in size:
        # A free axis has room for the frame as it is.
        scale = min(1.0, scale)
    inner = (
        max(1, min(width, round(own[1] * scale))),
        max(1, min(height, round(own[0] * scale))),
    )
    if inner != own[::-1]:
        frame = cv2.resize(frame, inner)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    pixels = np.full((height, width, 3), _MARGIN, "uint8")
    pixels[top : top + inner[1], left : left + inner[0]] = frame
    exact = inner[0] / own[1], inner[1] / own[0]
    return Fitted(pixels, exact, (float(left), float(top)))


def to_tensor(
    pixels: np.ndarray,
    spec: InputSpec,
    scale: float | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> np.ndarray:
    """Returns the pixels as the input of a model.

    Args:
        pixels: uint8 array `(height, width, 3)`.
        spec: What the input is.
        scale: What values are multiplied with; None for 1/255, or 1 if the
            input is uint8.
        mean: What is subtracted from each color then.
        std: What each color is divided by in the end.
    """
    values = pixels
    if spec.dtype != "uint8":
        values = pixels.astype("float32")
        values *= np.float32(1 / 255 if scale is None else scale)
        if mean is not None:
            values -= np.array(mean, "float32")
        if std is not None:
            values /= np.array(std, "float32")
    if spec.channels_first:
        values = values.transpose(2, 0, 1)
    if spec.has_batch:
        values = values[np.newaxis]
    return np.ascontiguousarray(values, spec.dtype)
