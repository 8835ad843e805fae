"""Draws realistic defects into photographs of textures.

Every defect is a layer with an opacity: `image + opacity * (layer - image)`.
One rule defines the mask of all of them: it marks the pixels whose opacity is
at least `MINIMUM_OPACITY`, and the opacity is set to zero elsewhere. So pixels
outside the mask are those of the photograph, unchanged.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage, spatial

#: Opacity from which a pixel of a defect counts, and below which it is not
#: drawn: a tenth of full strength cannot be seen at the rim.
MINIMUM_OPACITY = 0.1

#: Mean change of the grey value inside the mask, in [0, 1], that a defect must
#: reach to count as visible; a weaker one is drawn again somewhere else.
MINIMUM_CONTRAST = 0.04

_ATTEMPTS = 50

Layer = tuple[np.ndarray, np.ndarray]


def draw_defect(
    image: np.ndarray,
    defect: str,
    rng: np.random.Generator,
    foreign: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one defect at a random place, in a random size and strength.

    Args:
        image: Grey photograph `(height, width)`, floats in [0, 1].
        defect: One of `DEFECTS`: `"scratch"`, `"stain"`, `"hole"`,
            `"foreign"` or `"blur"`.
        rng: Source of randomness; the same state draws the same defect.
        foreign: Another material, of the shape of `image`; needed by
            `"foreign"`.

    Returns:
        The defective image, of the shape of `image`, and its mask, bool.
        Pixels outside the mask are exactly those of `image`.

    Raises:
        ValueError: If the defect is unknown, the foreign material is missing,
            or no visible defect can be drawn, as on a material without
            contrast.
    """
    if defect not in DEFECTS:
        raise ValueError(
            f"There is no such defect. Received: defect={defect!r}. Choose one "
            f"of {sorted(DEFECTS)}."
        )
    if defect == "foreign" and foreign is None:
        raise ValueError(
            "A foreign patch needs another material. Received: foreign=None"
        )
    for _ in range(_ATTEMPTS):
        if foreign is not None and defect == "foreign":
            layer, opacity = _foreign(image, rng, foreign)
        else:
            layer, opacity = DEFECTS[defect](image, rng)
        mask = opacity >= MINIMUM_OPACITY
        opacity = np.where(mask, opacity, 0.0)
        result = np.clip(image + opacity * (layer - image), 0.0, 1.0)
        change = np.abs(result - image)
        if mask.any() and change[mask].mean() >= MINIMUM_CONTRAST:
            return np.where(mask, result, image), mask
    raise ValueError(
        f"No visible {defect!r} could be drawn in {_ATTEMPTS} attempts. "
        f"Received: an image of shape {image.shape} with standard deviation "
        f"{image.std():.3f}. Use a material with more contrast."
    )


# === Defects: (image, rng) -> (layer, opacity) ===


def _scratch(image: np.ndarray, rng: np.random.Generator) -> Layer:
    """A thin curved groove: one flank catches the light, the other is dark."""
    side = min(image.shape)
    curve = _random_curve(image.shape, rng, rng.uniform(0.3, 0.8) * side)
    tangents = np.gradient(curve, axis=0)
    rows, columns = np.indices(image.shape)
    pixels = np.stack([rows.ravel(), columns.ravel()], axis=1)
    distance, nearest = spatial.cKDTree(curve).query(pixels)
    offset = pixels - curve[nearest]
    tangent = tangents[nearest]
    # Which side of the curve, from the sign of the cross product.
    flank = np.sign(
        tangent[:, 0] * offset[:, 1] - tangent[:, 1] * offset[:, 0]
    )

    # Pressure: none at both ends, uneven between them.
    along = np.linspace(0.0, 1.0, len(curve))
    pressure = np.minimum(1.0, 6.0 * np.minimum(along, 1.0 - along))
    pressure = pressure * (1.0 + 0.35 * _smooth_noise_1d(len(curve), rng))
    width = side / 128 * rng.uniform(0.9, 1.8) * pressure[nearest]
    opacity = np.clip(width - distance + 0.5, 0.0, 1.0)
    opacity = opacity * np.clip(1.5 * pressure[nearest], 0.0, 1.0)

    strength = rng.uniform(0.18, 0.35)
    bright = rng.choice([-1.0, 1.0])
    core = np.exp(-((distance / np.maximum(width, 0.3)) ** 2))
    relief = bright * (0.7 * core + 0.5 * flank * (1.0 - core))
    layer = image.ravel() + strength * relief
    return layer.reshape(image.shape), opacity.reshape(image.shape)


def _stain(image: np.ndarray, rng: np.random.Generator) -> Layer:
    """A dried spill: soft, uneven, with a stronger rim."""
    field = _blob_field(image.shape, rng, (0.09, 0.2), roughness=0.5)
    opacity = _smooth_step(field / 0.25)
    rim = np.exp(-(((field - 0.2) / 0.12) ** 2))
    uneven = 1.0 + 0.3 * _smooth_noise(image.shape, rng, scale=0.06)
    amount = np.clip((0.75 + 0.4 * rim) * uneven, 0.0, 1.5)
    if rng.random() < 0.65:
        darkening = rng.uniform(0.25, 0.45)
        layer = image * (1.0 - darkening * amount)
    else:
        # A pale film takes contrast away as well.
        veil = rng.uniform(0.25, 0.4) * amount
        layer = image + veil * (0.85 - image)
    return layer, opacity


def _hole(image: np.ndarray, rng: np.random.Generator) -> Layer:
    """A sharp dark cavity, with its lit wall opposite to the light."""
    field = _blob_field(image.shape, rng, (0.045, 0.1), roughness=0.9)
    scale = min(image.shape) / 128
    sharpness = np.abs(np.stack(np.gradient(field))).sum(axis=0)
    opacity = np.clip(field / np.maximum(sharpness, 1e-3) + 0.5, 0.0, 1.0)
    inside = ndimage.gaussian_filter((field > 0.0).astype(float), 1.2 * scale)
    down, right = np.gradient(inside)
    # Light falls from the upper left: the wall at the lower right is lit.
    wall = np.clip(-(down + right) / np.sqrt(2.0), -1.0, 1.0) * scale
    floor = image.mean() * rng.uniform(0.12, 0.3)
    grain = 0.25 * (ndimage.gaussian_filter(image, 0.8) - image.mean())
    layer = floor + grain + 0.6 * np.clip(wall, 0.0, None)
    return np.clip(layer, 0.02, 1.0), opacity


def _foreign(
    image: np.ndarray, rng: np.random.Generator, foreign: np.ndarray
) -> Layer:
    """A patch of another material, as bright as its surroundings."""
    field = _blob_field(image.shape, rng, (0.09, 0.18), roughness=0.7)
    sharpness = np.abs(np.stack(np.gradient(field))).sum(axis=0)
    opacity = np.clip(
        field / np.maximum(1.5 * sharpness, 1e-3) + 0.5, 0.0, 1.0
    )
    patch = np.rot90(foreign, rng.integers(4)) if _is_square(foreign) else foreign
    here = opacity > 0.5
    if not here.any():
        return image, np.zeros_like(image)
    around = ndimage.binary_dilation(here, iterations=4)
    patch = patch - patch[here].mean()
    patch = patch * image[around].std() / max(patch[here].std(), 1e-3)
    return image[around].mean() + patch, opacity


def _blur(image: np.ndarray, rng: np.random.Generator) -> Layer:
    """A region smeared in one direction, as if wiped."""
    field = _blob_field(image.shape, rng, (0.1, 0.2), roughness=0.5)
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
    """Returns a field that is positive inside an irregular, tilted blob.

    It is about 1 in the middle and 0 on the outline. `radius` is the range of
    the mean radius, relative to the shorter side.
    """
    side = min(shape)
    size = rng.uniform(*radius) * side
    stretch = rng.uniform(0.65, 1.0)
    angle = rng.uniform(0.0, np.pi)
    margin = 0.8 * size
    centre = [rng.uniform(margin, length - margin) for length in shape]
    rows, columns = np.indices(shape, dtype=float)
    rows, columns = rows - centre[0], columns - centre[1]
    along = rows * np.cos(angle) + columns * np.sin(angle)
    across = columns * np.cos(angle) - rows * np.sin(angle)
    distance = np.hypot(along / size, across / (size * stretch))
    noise = _fractal_noise(shape, rng, scale=0.7 * size / side)
    field = 1.0 - distance + 0.3 * roughness * noise
    # Only the piece in the middle: noise may cut off islands.
    pieces, _ = ndimage.label(field > 0.0)
    piece = pieces[round(centre[0]), round(centre[1])]
    return np.where((pieces == piece) & (piece > 0), field, -np.abs(field))


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
    noise = ndimage.gaussian_filter1d(
        rng.standard_normal(length), length / 12, mode="reflect"
    )
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
    shifted = [
        ndimage.shift(
            image,
            (offset * np.sin(angle), offset * np.cos(angle)),
            order=1,
            mode="mirror",
        )
        for offset in offsets
    ]
    return np.mean(shifted, axis=0)


def _smooth_step(values: np.ndarray) -> np.ndarray:
    clipped = np.clip(values, 0.0, 1.0)
    return clipped * clipped * (3.0 - 2.0 * clipped)


def _is_square(image: np.ndarray) -> bool:
    return image.shape[0] == image.shape[1]
