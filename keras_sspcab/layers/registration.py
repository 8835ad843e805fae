"""A layer that registers images to a reference."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.checks import standardize_int, standardize_number
from keras_sspcab.layers.base import ConfigLayer, Shape
from keras_sspcab.layers.fourier_correlation import FourierCorrelation
from keras_sspcab.layers.resampling import resample_rigidly

# Degrees between the angles that are tried at first.
_ANGLE_STEP = 5.0

# Gauss-Newton steps at half and at full working size.
_STEPS = (3, 4)

# Images that `fit` looks at: all, those that may become the reference, and
# those that choose it.
_MAX_IMAGES, _MAX_CANDIDATES, _MAX_VOTERS = 64, 8, 16

# How far from chance to 1 a correlation must be to count.
_MARGIN = 0.15

# Added where it would be divided by 0.
_TINY = 1e-9

# Longer side of the mean that fills what is outside, at most.
_MAX_FILLING = 256


@dataclasses.dataclass(frozen=True)
class RegistrationGain:
    """What normal images gain by being aligned.

    Attributes:
        before: Mean correlation of the images with the reference, as they are.
        after: The same, aligned. If it is hardly more, they were aligned.
        chance: What is reached with a reference that has the same spectrum as
            the true one, but no structure.
        is_significant: Whether `after` is above chance. If not, the layer
            leaves images as they are.

    Example:
    >>> RegistrationGain(0.3, 0.9, 0.4, is_significant=True).after
    0.9
    """

    before: float
    after: float
    chance: float
    is_significant: bool


@keras.saving.register_keras_serializable(package="keras_sspcab")
class ImageRegistration(ConfigLayer):
    """Aligns each image with a reference, by a rotation and a shift.

    Edges are compared: magnitudes of the gradients of the gray image, shrunk to
    `working_size`. At half of that size they are correlated with the reference
    at angles five degrees apart and at all shifts, by products with matrices of
    a Fourier transform; Gauss-Newton steps refine the best of these to small
    parts of a pixel.

    An image that fits the reference no better than by chance is left as it is.
    So is every image before the first `fit`.

    References:
    - Baker and Matthews, "Lucas-Kanade 20 years on: a unifying framework",
      2004: the inverse compositional steps.

    Args:
        max_angle: Largest angle that is tried, in degrees, from 0 to 180 (the
            default).
        max_shift: Largest shift that is tried, as a share of the longer side
            of the image, from 0 to 0.5. Defaults to 0.25.
        working_size: Longer side of the shrunk image, in pixels, at least 16.
            Defaults to 96.

    Input shape:
        `(batch, height, width, channels)`, height and width known.

    Outputs, in float32 whatever the dtype policy:
        images: The aligned images, in the shape of the inputs. What lies
            outside of an image is filled with the mean of the aligned normal
            images, in which nothing is odd.
        transforms: `(batch, 2, 3)`, as `RigidResampling` takes them.
        quality: `(batch,)`: the correlation of the edges of the aligned image
            with those of the reference, at most 1. It is low for images that do
            not show what the others show.

    Example:
    >>> images = np.random.default_rng(0).random((4, 32, 48, 1))
    >>> layer = ImageRegistration(max_angle=10)
    >>> layer.fit(images).is_significant
    False
    >>> outputs = layer(images)
    >>> tuple(outputs["transforms"].shape)
    (4, 2, 3)
    >>> move_back = RigidResampling(inverse=True, fill_value=0.0)
    >>> tuple(move_back(outputs["images"], outputs["transforms"]).shape)
    (4, 32, 48, 1)
    """

    config_names = ("max_angle", "max_shift", "working_size")
    # Half precision cannot tell the pixels of a large image apart.
    default_dtype = "float32"

    def __init__(
        self,
        max_angle: float = 180.0,
        max_shift: float = 0.25,
        working_size: int = 96,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"trainable": False, **kwargs})
        self.max_angle = standardize_number(max_angle, "max_angle", 0, 180)
        self.max_shift = standardize_number(max_shift, "max_shift", 0, 0.5)
        self.working_size = standardize_int(working_size, "working_size", 16)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: Shape) -> None:
        *sizes, channels = self.fix_sizes(input_shape, 1, 2, 3)
        self._size = tuple(sizes)
        longer = max(sizes)
        side = min(self.working_size, longer)
        side += side % 2
        half = side // 2
        self._sides = half, side
        self._scale = max(1.0, longer / side)

        # === Constants ===
        shares = [_area_shares(size, side, self._scale) for size in sizes]
        self._shrinking = shares[0], shares[1].T
        self._filling_scale = max(1.0, longer / _MAX_FILLING)
        small = [max(1, round(n / self._filling_scale)) for n in sizes]
        pairs = [*zip(sizes, small, strict=True)]
        self._averaging = [_area_shares(n, m, n / m) for n, m in pairs]
        self._enlarging = [_linear_shares(n, m) for n, m in pairs]
        self._halving = np.kron(np.eye(half), np.full((1, 2), 0.5))
        self._difference = (np.eye(side, k=1) - np.eye(side, k=-1)) / 2
        # Where a pixel and its neighbors are within the image.
        self._inside = np.outer(
            *(
                np.convolve(part.sum(axis=1) > 1 - 1e-6, np.ones(3), "same") > 2
                for part in shares
            )
        )
        steps = math.ceil(self.max_angle / _ANGLE_STEP)
        angles = np.linspace(-self.max_angle, self.max_angle, 2 * steps + 1)
        self._angles = np.deg2rad(angles[1:] if steps == 36 else angles)
        self._correlation = FourierCorrelation(
            half, math.ceil(self.max_shift * half)
        )

        # === What is fitted, at half and at full working size ===
        def add(name: str, *shape: int, initializer: Any = "zeros") -> Any:
            return self.add_weight(
                shape, initializer, trainable=False, name=name
            )

        shape = len(self._angles), *self._correlation.shape
        self.spectra = add("spectra", 2, *shape)
        self.templates = [add(f"template_{n}", n * n) for n in self._sides]
        self.steepest = [add(f"steepest_{n}", n * n, 3) for n in self._sides]
        self.filling = add("filling", *small, channels)
        # No correlation reaches 2.
        self.min_quality = add(
            "min_quality", initializer=keras.initializers.Constant(2.0)
        )

    def call(self, inputs: Any) -> dict[str, Any]:
        inputs = ops.cast(inputs, self.compute_dtype)
        pose, quality, _ = self._register(self._edges(inputs))
        fits = quality >= self.min_quality
        cos, sin, right, down = (
            ops.where(fits, part, neutral)
            for part, neutral in zip(pose, (1.0, 0.0, 0.0, 0.0), strict=True)
        )
        height, width = self._size
        cos, sin, right, down = pose = _about_center(
            (cos, sin, self._scale * right, self._scale * down), height, width
        )
        rows = (cos, -sin, right), (sin, cos, down)
        return {
            "images": resample_rigidly(
                inputs, pose, self._resize(self.filling, self._enlarging)
            ),
            "transforms": ops.stack(
                [ops.stack(row, axis=-1) for row in rows], axis=1
            ),
            "quality": quality,
        }

    def compute_output_spec(self, inputs: Any) -> dict[str, Any]:
        def spec(*shape: int | None) -> keras.KerasTensor:
            return keras.KerasTensor(shape, self.compute_dtype)

        batch = inputs.shape[0]
        return {
            "images": spec(*inputs.shape),
            "transforms": spec(batch, 2, 3),
            "quality": spec(batch),
        }

    # === Registration ===

    def _constant(self, values: np.ndarray) -> Any:
        return ops.convert_to_tensor(values, dtype=self.compute_dtype)

    def _edges(self, images: Any) -> Any:
        """Magnitudes of gradients about their mean, `(batch, side, side)`."""
        down, right = (self._constant(part) for part in self._shrinking)
        gray = ops.matmul(down, ops.matmul(ops.mean(images, axis=-1), right))
        difference = self._constant(self._difference)
        squares = ops.square(ops.matmul(difference, gray)) + ops.square(
            ops.matmul(gray, ops.transpose(difference))
        )
        inside = self._constant(self._inside)
        edges = ops.sqrt(squares) * inside
        total = ops.sum(edges, axis=(1, 2), keepdims=True)
        mean = total / max(1, np.count_nonzero(self._inside))
        return (edges - mean) * inside

    def _resize(self, image: Any, shares: Any) -> Any:
        """Resizes an image `(height, width, channels)`."""
        x = ops.transpose(image, (2, 0, 1))
        rows, columns = (self._constant(part) for part in shares)
        x = ops.matmul(ops.matmul(rows, x), ops.transpose(columns))
        return ops.transpose(x, (1, 2, 0))

    def _register(self, edges: Any) -> tuple[Any, Any, Any]:
        """Returns the pose in working pixels, the quality, the aligned edges.

        A pose is cosine, sine and shift, about the center of the image.
        """
        halving = self._constant(self._halving)
        small = ops.matmul(ops.matmul(halving, edges), ops.transpose(halving))
        pose = self._search(small)
        for _ in range(_STEPS[0]):
            pose = self._refine(0, pose, self._compare(0, small, pose)[0])
        pose = (*pose[:2], 2.0 * pose[2], 2.0 * pose[3])
        # Steps can lead astray: what counts is the best pose of all, or none.
        zeros = ops.zeros_like(pose[0])
        best = (zeros + 1.0, zeros, zeros, zeros)
        aligned, quality = self._compare(1, edges, best)
        for _ in range(_STEPS[1] + 1):
            moved, found = self._compare(1, edges, pose)
            is_better = found > quality
            best = tuple(
                ops.where(is_better, new, old)
                for new, old in zip(pose, best, strict=True)
            )
            aligned = ops.where(is_better[:, None], moved, aligned)
            quality = ops.maximum(found, quality)
            pose = self._refine(1, pose, moved)
        return best, quality, aligned

    def _search(self, edges: Any) -> tuple[Any, ...]:
        """Returns the best of all angles and shifts."""
        found = self._correlation(edges, self.spectra)
        limit = self._correlation.max_pixels
        side = 2 * limit + 1
        found = ops.reshape(found, (-1, len(self._angles) * side**2))
        # No format but SavedModel has what `argmax` of Keras is made of.
        index = ops.cast(ops.top_k(found, 1)[1][:, 0], "int32")
        angle, row, column = (
            index // side**2,
            index // side % side,
            index % side,
        )
        return (
            ops.take(self._constant(np.cos(self._angles)), angle, axis=0),
            ops.take(self._constant(np.sin(self._angles)), angle, axis=0),
            ops.cast(column - limit, self.compute_dtype),
            ops.cast(row - limit, self.compute_dtype),
        )

    def _compare(
        self, level: int, edges: Any, pose: tuple[Any, ...]
    ) -> tuple[Any, Any]:
        """Returns moved edges `(batch, pixels)`, and how they correlate."""
        side = self._sides[level]
        moved = resample_rigidly(
            edges[..., None], _about_center(pose, side, side), fill_value=0.0
        )
        moved = ops.reshape(moved, (-1, side * side))
        squares = ops.sum(ops.square(moved), axis=-1, keepdims=True)
        moved = moved / ops.sqrt(squares + _TINY)
        return moved, ops.sum(moved * self.templates[level], axis=-1)

    def _refine(
        self, level: int, pose: tuple[Any, ...], moved: Any
    ) -> tuple[Any, ...]:
        """Returns the pose after a Gauss-Newton step."""
        error = moved - self.templates[level]
        step = ops.matmul(error, self.steepest[level])
        angle = ops.clip(step[:, 0], -0.1, 0.1)
        x, y = (ops.clip(step[:, axis], -2.0, 2.0) for axis in (1, 2))
        cos, sin, right, down = pose
        step_cos, step_sin = ops.cos(angle), ops.sin(angle)
        cos, sin = (
            cos * step_cos + sin * step_sin,
            sin * step_cos - cos * step_sin,
        )
        return cos, sin, right - cos * x + sin * y, down - sin * x - cos * y

    # === Fitting ===

    def fit(self, data: Any, reference: Any = None) -> RegistrationGain:
        """Makes the reference, and returns what the images gain by it.

        The mean of the images, once they are aligned with one of them.

        Args:
            data: Normal images, one at least: an array, or an iterable of
                batches or of tuples that begin with one. The first 64 count.
            reference: The image that gives place and angle, `(height, width,
                channels)`. None (the default) takes that of the images which
                others fit best.

        Raises:
            ValueError: If there is no image, an image has another size than
                others, or a value is not finite.
        """
        edges, small = self._collect(data)
        if reference is None:
            candidates = edges[:: -(-len(edges) // _MAX_CANDIDATES)]
        else:
            candidates, _ = self._collect(np.asarray(reference)[np.newaxis])
        votes = []
        for candidate in candidates:
            self._set_reference(candidate)
            votes.append(self._align(edges[:_MAX_VOTERS])[1].mean())
        chosen = candidates[int(np.argmax(votes))]
        self._set_reference(chosen)
        _, after, aligned = self._align(edges)
        flat = edges.reshape(len(edges), -1)
        before = flat @ ops.convert_to_numpy(self.templates[1])
        before /= np.linalg.norm(flat, axis=1) + _TINY
        # An image fits itself.
        is_other = (edges != chosen).any(axis=(1, 2))
        if is_other.any():
            before, after = before[is_other], after[is_other]
        mean = aligned.mean(axis=0).reshape(chosen.shape)
        self._set_reference(_without_structure(mean))
        chance = self._align(edges)[1]
        self._set_reference(mean)
        pose = self._align(edges)[0]
        self.filling.assign(self._mean_aligned(small, pose))
        highest = float(np.quantile(chance, 0.95))
        limit = highest + _MARGIN * (1 - highest)
        is_significant = bool(np.quantile(after, 0.1) > limit)
        self.min_quality.assign(limit if is_significant else 2.0)
        return RegistrationGain(
            float(before.mean()),
            float(after.mean()),
            float(chance.mean()),
            is_significant,
        )

    def _mean_aligned(self, images: np.ndarray, pose: Any) -> Any:
        scale = self._scale / self._filling_scale
        pose = (*pose[:2], scale * pose[2], scale * pose[3])
        pose = _about_center(pose, *images.shape[1:3])
        return ops.mean(
            resample_rigidly(ops.convert_to_tensor(images), pose), axis=0
        )

    def _collect(self, data: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns the first images: their edges, and shrunk."""
        batches: Iterable[Any] = [data] if hasattr(data, "shape") else data
        edges: list[np.ndarray] = []
        small: list[np.ndarray] = []
        for batch in batches:
            images = batch[0] if isinstance(batch, (tuple, list)) else batch
            images = ops.convert_to_numpy(images)[: _MAX_IMAGES - len(edges)]
            if not self.built:
                self.build((None, *images.shape[1:]))
            if images.ndim != 4 or images.shape[1:3] != self._size:
                raise ValueError(
                    f"{self.name} aligns images of {self._size[0]} x "
                    f"{self._size[1]} pixels, (batch, height, width, channels)."
                    f" Received: shape {images.shape}"
                )
            if not np.isfinite(images).all():
                raise ValueError(
                    f"{self.name} is fitted to finite images. Received: values "
                    "that are NaN or infinite"
                )
            for image in images.astype(self.compute_dtype):
                edges.append(ops.convert_to_numpy(self._edges(image[None]))[0])
                shrunk = self._resize(image, self._averaging)
                small.append(ops.convert_to_numpy(shrunk))
            if len(edges) == _MAX_IMAGES:
                break
        if not edges:
            raise ValueError(
                f"{self.name} needs normal images to make its reference of. "
                "Received: none"
            )
        return np.stack(edges), np.stack(small)

    def _align(
        self, edges: np.ndarray
    ) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
        """Returns poses, qualities, and the edges once they are aligned."""
        parts = []
        for batch in np.split(edges, range(8, len(edges), 8)):
            pose, *others = self._register(batch)
            parts.append([ops.convert_to_numpy(x) for x in (*pose, *others)])
        *pose, quality, aligned = map(np.concatenate, zip(*parts, strict=True))
        return tuple(pose), quality, aligned

    def _set_reference(self, edges: np.ndarray) -> None:
        levels = self._halving @ edges @ self._halving.T, edges
        for level, image in enumerate(levels):
            image = image / (np.linalg.norm(image) + _TINY)
            self.templates[level].assign(image.ravel())
            steepest = _steepest_descent(image, self.max_angle > 0)
            self.steepest[level].assign(steepest)
        spectra = self._correlation.spectra(levels[0], self._angles)
        self.spectra.assign(spectra)


def _about_center(
    pose: tuple[Any, ...], height: int, width: int
) -> tuple[Any, ...]:
    """Returns a pose about the center of an image as one about its corner."""
    cos, sin, right, down = pose
    x, y = (width - 1) / 2, (height - 1) / 2
    return (
        cos,
        sin,
        right + x - cos * x + sin * y,
        down + y - sin * x - cos * y,
    )


def _area_shares(size: int, side: int, scale: float) -> np.ndarray:
    """Shares of pixels in larger ones about the same center, as a matrix."""
    edges = (np.arange(side + 1) - side / 2) * scale + size / 2
    pixels = np.arange(size)
    ends = np.minimum(edges[1:, np.newaxis], pixels + 1)
    overlap = ends - np.maximum(edges[:-1, np.newaxis], pixels)
    return np.maximum(overlap, 0) / scale


def _linear_shares(size: int, count: int) -> np.ndarray:
    """Shares of `count` values in `size` interpolated ones, as a matrix."""
    places = (np.arange(size) + 0.5) * count / size - 0.5
    places = np.clip(places, 0, count - 1)[:, np.newaxis]
    return np.maximum(1 - np.abs(places - np.arange(count)), 0)


def _steepest_descent(template: np.ndarray, turns: bool) -> np.ndarray:
    """What differences say of angle and shift, `(pixels, 3)`."""
    down, right = np.gradient(template)
    pixels = np.arange(len(template)) - (len(template) - 1) / 2
    turn = turns * (down * pixels - right * pixels[:, np.newaxis])
    changes = np.stack([turn, right, down], axis=-1).reshape(-1, 3)
    # Of the length, which is always one, differences say nothing.
    flat = template.ravel()
    changes -= np.outer(flat, flat @ changes)
    moments = changes.T @ changes
    added = 1e-3 * np.trace(moments[1:, 1:]) + _TINY
    return changes @ np.linalg.inv(moments + added * np.eye(3))


def _without_structure(image: np.ndarray) -> np.ndarray:
    """Returns an image with the same spectrum, but for random phases."""
    noise = np.fft.rfft2(np.random.default_rng(0).normal(size=image.shape))
    spectrum = np.abs(np.fft.rfft2(image)) * np.exp(1j * np.angle(noise))
    return np.fft.irfft2(spectrum, image.shape)
