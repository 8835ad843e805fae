"""Draws realistic defects into photographs of textures.

Every defect is a layer with an opacity: `image + opacity * (layer - image)`.
The mask marks the pixels whose opacity is at least a tenth. Elsewhere it is set
to zero, so that all other pixels are those of the photograph.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage, spatial

from keras_sspcab.checks import standardize_choice

# Opacity from which a pixel of a defect counts, and below which it is not
# drawn: a tenth of full strength cannot be seen at the rim.
_MINIMUM_OPACITY = 0.1

# Mean change of the gray value inside the mask, in [0, 1], that a defect must
# reach to count as visible, and the same in standard deviations of the image.
# A weaker one is drawn again somewhere else.
_MINIMUM_CONTRAST = 0.04
_MINIMUM_RELATIVE_CONTRAST = 0.45

_ATTEMPTS = 50

Layer = tuple[np.ndarray, np.ndarray]


def draw_defect(
    image: np.ndarray,
    defect: str,
    rng: np.random.Generator,
    foreign: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one defect at a random place, in a random size and strength.

    Images are gray, `(height, width)` in [0, 1]; `foreign` is another material
    of that shape. Returns the defective image and its mask, bool.
    """
    defect = standardize_choice(defect, tuple(DEFECTS), "defect")
    if defect == "foreign" and foreign is None:
        raise ValueError(
            "A foreign patch needs another material. Received: foreign=None"
        )
    visible = max(_MINIMUM_CONTRAST, _MINIMUM_RELATIVE_CONTRAST * image.std())
    for _ in range(_ATTEMPTS):
        if foreign is not None and defect == "foreign":
            layer, opacity = _foreign(image, rng, foreign)
        else:
            layer, opacity = DEFECTS[defect](image, rng)
        mask = opacity >= _MINIMUM_OPACITY
        opacity = np.where(mask, opacity, 0.0)
        result = np.clip(image + opacity * (layer - image), 0.0, 1.0)
        change = np.abs(result - image)
        if mask.any() and change[mask].mean() >= visible:
            return np.where(mask, result, image), mask
    raise ValueError(
        f"No visible {defect!r} could be drawn in {_ATTEMPTS} attempts. "
        f"Received: an image of shape {image.shape} with standard deviation "
        f"{image.std():.3f}. Use a material with more contrast."
    )


# === Defects: (image, rng) -> (layer, opacity) ===


def _scratch(image: np.ndarray, rng: np.random.Generator) -> Layer:
    """A thin curved groove, bright or dark, with a shadow along one flank."""
    side = min(image.shape)
    curve = _random_curve(image.shape, rng, rng.uniform(0.35, 0.9) * side)
    tangents = np.gradient(curve, axis=0)
    rows, columns = np.indices(image.shape)
    pixels = np.stack([rows.ravel(), columns.ravel()], axis=1)
    distance, nearest = spatial.cKDTree(curve).query(pixels)
    offset = pixels - curve[nearest]
    tangent = tangents[nearest]
    # Positive on one side of the curve: the sign of the cross product.
    side_of = tangent[:, 0] * offset[:, 1] - tangent[:, 1] * offset[:, 0]

    # Pressure: none at both ends, uneven between them.
    along = np.linspace(0.0, 1.0, len(curve))
    pressure = np.minimum(1.0, 5.0 * np.minimum(along, 1.0 - along))
    pressure = pressure * (1.0 + 0.35 * _smooth_noise_1d(len(curve), rng))
    pressure = np.clip(pressure, 0.0, 1.6)[nearest]
    half_width = side / 128 * rng.uniform(0.45, 1.0) * pressure
    strength = np.clip(1.4 * pressure, 0.0, 1.0)
    core = strength * np.clip(half_width - distance + 0.5, 0.0, 1.0)
    flank = np.abs(distance - 2.0 * half_width)
    shadow = np.clip(half_width - flank + 0.5, 0.0, 1.0) * (side_of > 0.0)
    shadow = 0.6 * strength * shadow * (1.0 - core)

    contrast = max(rng.uniform(0.25, 0.4), 1.8 * image.std())
    tone = rng.choice([-1.0, 1.0]) * contrast
    ground = 0.4 * image.ravel() + 0.6 * image.mean()
    share = core / np.maximum(core + shadow, 1e-6)
    layer = ground + tone * share - 0.6 * tone * (1.0 - share)
    layer = np.clip(layer, 0.03, 0.97)
    opacity = core + shadow
    return layer.reshape(image.shape), opacity.reshape(image.shape)


def _stain(image: np.ndarray, rng: np.random.Generator) -> Layer:
    """A spill that has soaked in: soft rim, uneven strength."""
    field = _blob_field(image.shape, rng, (0.11, 0.23), roughness=1.1)
    opacity = _smooth_step(field / rng.uniform(0.25, 0.5))
    uneven = 1.0 + 0.2 * _fractal_noise(image.shape, rng, scale=0.08)
    amount = np.clip(uneven, 0.4, 1.6)
    if rng.random() < 0.65:
        layer = image * (1.0 - rng.uniform(0.3, 0.5) * amount)
    else:
        # A pale film takes contrast away as well.
        veil = rng.uniform(0.25, 0.4) * amount
        layer = image + veil * (0.85 - image)
    return layer, opacity


def _hole(image: np.ndarray, rng: np.random.Generator) -> Layer:
    """A sharp dark cavity; light from the upper left falls on its far wall."""
    field = _blob_field(image.shape, rng, (0.05, 0.11), roughness=1.2)
    opacity = _sharp_edge(field)
    scale = min(image.shape) / 128
    inside = ndimage.gaussian_filter((field > 0.0).astype(float), 1.8 * scale)
    down, right = np.gradient(inside)
    facing = -(down + right) / np.sqrt(2.0) * scale
    floor = image.mean() * rng.uniform(0.15, 0.35)
    grain = 0.3 * (ndimage.gaussian_filter(image, 0.7) - image.mean())
    # The near wall lies in shadow, the far one is lit.
    layer = floor + grain + np.where(facing > 0.0, 1.4, 0.4) * facing
    return np.clip(layer, 0.03, 0.97), opacity


def _foreign(
    image: np.ndarray, rng: np.random.Generator, foreign: np.ndarray
) -> Layer:
    """A patch of another material, as bright as its surroundings."""
    field = _blob_field(image.shape, rng, (0.09, 0.18), roughness=1.2)
    opacity = _sharp_edge(field, width=1.5)
    here = opacity > 0.5
    if not here.any():
        return image, np.zeros_like(image)
    around = ndimage.binary_dilation(here, iterations=4)
    patch = foreign - foreign[here].mean()
    gain = image[around].std() / max(patch[here].std(), 1e-3)
    patch = patch * np.clip(gain, 0.6, 1.2)
    return image[around].mean() + patch, opacity


def _blur(image: np.ndarray, rng: np.random.Generator) -> Layer:
    """A region smeared in one direction, as if wiped."""
    field = _blob_field(image.shape, rng, (0.11, 0.2), roughness=1.0)
    opacity = _smooth_step(field / 0.2)
    length = min(image.shape) / 128 * rng.uniform(11.0, 20.0)
    smeared = _smear(image, rng.uniform(0.0, np.pi), length)
    return ndimage.gaussian_filter(smeared, 0.7), opacity


#: Defect types by name.
DEFECTS: dict[str, Callable[..., Layer]] = {
    "scratch": _scratch,
    "stain": _stain,
    "hole": _hole,
    "foreign": _foreign,
    "blur": _blur,
}


# === Shapes and noise ===


def _blob_field(
    shape: tuple[int, ...],
    rng: np.random.Generator,
    radius: tuple[float, float],
    roughness: float,
) -> np.ndarray:
    """Draws a blob: about 1 in its middle, 0 on the outline, negative outside.

    `radius` is the range of the mean radius, relative to the shorter side.
    """
    side = min(shape)
    size = rng.uniform(*radius) * side
    stretch = rng.uniform(0.65, 1.0)
    angle = rng.uniform(0.0, np.pi)
    margin = 0.8 * size
    center = [rng.uniform(margin, length - margin) for length in shape]
    rows, columns = np.indices(shape, dtype=float)
    rows, columns = rows - center[0], columns - center[1]
    along = rows * np.cos(angle) + columns * np.sin(angle)
    across = columns * np.cos(angle) - rows * np.sin(angle)
    distance = np.hypot(along / size, across / (size * stretch))
    noise = _fractal_noise(shape, rng, scale=0.35 * size / side)
    field = 1.0 - distance + 0.22 * roughness * noise
    # One piece without gaps: noise may cut off islands and leave holes.
    pieces, _ = ndimage.label(field > 0.0)
    piece = pieces[round(center[0]), round(center[1])]
    blob = ndimage.binary_fill_holes((pieces == piece) & (pieces > 0))
    return np.where(blob, np.abs(field), -np.abs(field))


def _fractal_noise(
    shape: tuple[int, ...], rng: np.random.Generator, scale: float
) -> np.ndarray:
    """Sums octaves of smooth noise, like Perlin noise; unit variance."""
    octaves = [
        0.5**octave * _smooth_noise(shape, rng, scale / 2**octave)
        for octave in range(4)
    ]
    total = np.sum(octaves, axis=0)
    return total / total.std()


def _smooth_noise(
    shape: tuple[int, ...], rng: np.random.Generator, scale: float
) -> np.ndarray:
    """Returns noise of unit variance; `scale` is relative to the side."""
    noise = ndimage.gaussian_filter(
        rng.standard_normal(shape), max(scale * min(shape), 0.5), mode="wrap"
    )
    return (noise - noise.mean()) / noise.std()


def _smooth_noise_1d(length: int, rng: np.random.Generator) -> np.ndarray:
    noise = ndimage.gaussian_filter1d(rng.standard_normal(length), length / 12)
    return (noise - noise.mean()) / max(noise.std(), 1e-6)


def _random_curve(
    shape: tuple[int, ...], rng: np.random.Generator, length: float
) -> np.ndarray:
    """Returns points every quarter pixel on a curve that bends slowly."""
    steps = max(int(4 * length), 8)
    bend = rng.normal(0.0, 1.0) / steps
    wobble = 0.15 * _smooth_noise_1d(steps, rng)
    heading = rng.uniform(0.0, 2.0 * np.pi) + bend * np.arange(steps) + wobble
    steps_taken = 0.25 * np.stack([np.sin(heading), np.cos(heading)], axis=1)
    points = np.cumsum(steps_taken, axis=0)
    points = points - points.mean(axis=0)
    middle = [rng.uniform(0.3, 0.7) * side for side in shape]
    return points + middle


def _smear(image: np.ndarray, angle: float, length: float) -> np.ndarray:
    """Averages along a line: motion blur."""
    offsets = np.linspace(-0.5, 0.5, max(int(2 * length), 3)) * length
    direction = np.array([np.sin(angle), np.cos(angle)])
    shifted = [
        ndimage.shift(image, offset * direction, order=1, mode="mirror")
        for offset in offsets
    ]
    return np.mean(shifted, axis=0)


def _sharp_edge(field: np.ndarray, width: float = 1.0) -> np.ndarray:
    """Anti-aliases the outline of a blob over about `width` pixels."""
    return ndimage.gaussian_filter((field > 0.0).astype(float), 0.5 * width)


def _smooth_step(values: np.ndarray) -> np.ndarray:
    clipped = np.clip(values, 0.0, 1.0)
    return clipped * clipped * (3.0 - 2.0 * clipped)
