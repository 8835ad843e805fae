"""Correlation of images with a turned reference, by products of matrices."""

from typing import Any

import numpy as np
from keras import ops

from keras_sspcab.layers.base import multiply_last_axis


class FourierCorrelation:
    """Correlates square images at all shifts up to a limit.

    By matrices of a discrete Fourier transform: the operations for it are not
    in every format of export.
    """

    def __init__(self, side: int, max_pixels: int) -> None:
        # What leaves an image at one side must not come in at the other.
        size = side + max_pixels
        # Higher frequencies differ at angles between those that are tried.
        highest = size // 4
        pixels, shifts = np.arange(side), np.arange(-max_pixels, max_pixels + 1)
        rows = 2 * np.pi / size * np.arange(-highest, highest + 1)
        columns = rows[highest:]
        self.max_pixels = max_pixels
        self.shape = len(rows), len(columns)
        self._down = np.exp(-1j * np.outer(rows, pixels))
        self._right = np.exp(-1j * np.outer(pixels, columns))
        self._up = np.exp(1j * np.outer(shifts, rows))
        # Of a real image, negative frequencies say the same.
        counts = np.where(columns > 0, 2, 1)[:, np.newaxis]
        self._left = counts * np.exp(1j * np.outer(columns, shifts))

    def spectra(self, image: np.ndarray, angles: np.ndarray) -> np.ndarray:
        """Returns those of the image turned by angles, conjugated.

        Real and imaginary parts: `(2, angles, rows, columns)`.
        """
        pixels = np.arange(len(image)) - (len(image) - 1) / 2
        y, x = np.meshgrid(pixels, pixels, indexing="ij")
        found = []
        for cos, sin in zip(np.cos(angles), np.sin(angles), strict=True):
            turned = _read(image, cos * x + sin * y, cos * y - sin * x)
            spectrum = np.conj(self._down @ turned @ self._right)
            found.append(spectrum / (np.linalg.norm(spectrum) + 1e-9))
        return np.stack([np.real(found), np.imag(found)])

    def __call__(self, images: Any, spectra: Any) -> Any:
        """Returns `(batch, angles, shifts down, shifts to the right)`."""

        def split(values: np.ndarray) -> tuple[Any, Any]:
            real, imaginary = (
                ops.convert_to_tensor(part, dtype=spectra.dtype)
                for part in (np.real(values), np.imag(values))
            )
            return real, imaginary

        x = tuple(ops.matmul(images, part) for part in split(self._right))
        x = _multiply(split(self._down), x, ops.matmul)
        x = _multiply([part[:, None] for part in x], spectra, ops.multiply)
        x = _multiply(split(self._up), x, ops.matmul)
        real, imaginary = split(self._left)
        return multiply_last_axis(x[0], real) - multiply_last_axis(
            x[1], imaginary
        )


def _multiply(first: Any, second: Any, product: Any) -> tuple[Any, Any]:
    """Multiplies pairs of real and imaginary parts."""
    return (
        product(first[0], second[0]) - product(first[1], second[1]),
        product(first[0], second[1]) + product(first[1], second[0]),
    )


def _read(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Interpolates at places about the center; 0 outside."""
    last = len(image) + 1
    padded = np.pad(image, 1)
    x, y = (np.clip(part + last / 2, 0, last - 1e-6) for part in (x, y))
    left, top = np.int64(x), np.int64(y)
    x, y = x - left, y - top
    above = padded[top, left] * (1 - x) + padded[top, left + 1] * x
    below = padded[top + 1, left] * (1 - x) + padded[top + 1, left + 1] * x
    return above * (1 - y) + below * y
