"""Images larger than what a host looks at, one tile after the other."""

import dataclasses
import functools
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.checks import standardize_number
from keras_sspcab.hosts.base import AnomalyModel
from keras_sspcab.hosts.detector import Untracked
from keras_sspcab.layers.base import Shape
from keras_sspcab.scoring.base import ScoringLayer

#: Tiles that a network gets at a time at most, whatever the size of the image.
TILES_AT_ONCE = 8


def tiles_at_once(count: int) -> int:
    """Returns how many of so many tiles a network gets at a time.

    All steps are alike, so that the last one is filled up: the size is that
    which does so least. Fewer than four tiles at a time would take longer.

    Example:
    >>> tiles_at_once(3), tiles_at_once(20), tiles_at_once(336)
    (3, 5, 8)
    """
    if count <= TILES_AT_ONCE:
        return count
    sizes = range(TILES_AT_ONCE, TILES_AT_ONCE // 2 - 1, -1)
    return min(sizes, key=lambda size: -count % size)


@dataclasses.dataclass(frozen=True)
class TileGrid:
    """Where the tiles of an image lie: evenly, from edge to edge.

    Attributes:
        image_size: Height and width of the image, in pixels.
        tile_size: Height and width of a tile, at most those of the image.
        overlap: Share of a side that neighbors have in common at least, from 0
            to 0.5. Defaults to 0.25.

    Raises:
        ValueError: If a tile is larger than the image, or the overlap is out of
            its range.

    Example:
    >>> grid = TileGrid((100, 160), (64, 64), overlap=0.25)
    >>> grid.origins.tolist()
    [[0, 0], [0, 48], [0, 96], [36, 0], [36, 48], [36, 96]]
    """

    image_size: tuple[int, int]
    tile_size: tuple[int, int]
    overlap: float = 0.25

    def __post_init__(self) -> None:
        standardize_number(self.overlap, "overlap", 0, 0.5)
        for side, tile in zip(self.image_size, self.tile_size, strict=True):
            if tile > side:
                raise ValueError(
                    "A tile must fit into the image. Received: tiles of "
                    f"{self.tile_size[0]} x {self.tile_size[1]} pixels, images "
                    f"of {self.image_size[0]} x {self.image_size[1]}"
                )

    @functools.cached_property
    def starts(self) -> tuple[np.ndarray, np.ndarray]:
        """First rows and first columns of the tiles."""
        found = []
        for side, tile in zip(self.image_size, self.tile_size, strict=True):
            stride = max(1, math.floor(tile * (1 - self.overlap)))
            count = -(-(side - tile) // stride) + 1
            found.append(np.linspace(0, side - tile, count).round().astype(int))
        return found[0], found[1]

    @property
    def origins(self) -> np.ndarray:
        """Row and column `(tiles, 2)` where tiles begin, row by row."""
        rows, columns = np.meshgrid(*self.starts, indexing="ij")
        return np.stack([rows.ravel(), columns.ravel()], axis=-1)

    def cut(self, array: np.ndarray) -> np.ndarray:
        """Returns the tiles `(tiles, height, width, ...)` of an array."""
        height, width = self.tile_size
        return np.stack(
            [array[y : y + height, x : x + width] for y, x in self.origins]
        )

    def blending(self, axis: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Says which pixels of tiles make those of the image along an axis.

        Returns pairs of an index into the tiles laid end to end and of a
        weight, for each pixel; the weights of a pixel add up to 1. They grow
        evenly from the edge of a tile to its middle.
        """
        starts, tile = self.starts[axis], self.tile_size[axis]
        pixels = np.arange(self.image_size[axis])
        inside = pixels - starts[:, np.newaxis]
        # From the centers of pixels to the nearer edge of the tile.
        height = np.minimum(inside, tile - 1 - inside) + 0.5
        height = np.where((inside >= 0) & (inside < tile), height, 0.0)
        weights = height / height.sum(axis=0)
        # Those that count come first.
        order = np.argsort(-weights, axis=0, kind="stable")
        layers = int((weights > 0).sum(axis=0).max())
        parts = []
        for number in order[:layers]:
            weight = weights[number, pixels]
            index = number * tile + np.clip(inside[number, pixels], 0, tile - 1)
            parts.append((index.astype("int32"), weight.astype("float32")))
        return parts


@keras.saving.register_keras_serializable(package="keras_sspcab")
class TiledScoring(ScoringLayer):
    """Raw scores and maps of a host, of images as large as its own or larger.

    The host looks at a few tiles at a time. The map is that of the tiles,
    blended where they overlap. The score is the highest of a tile: a small
    defect counts as much as in a small image.

    Args:
        host: An `AnomalyModel` of images, for one tile.
        image_size: Height and width of the images.
        overlap: As of `TileGrid`.
        skipped: Numbers of tiles that are not looked at. Their part of the map
            is zero.

    Input shape:
        `(batch, height, width, channels)`.

    Output:
        Raw score `(batch,)` and raw map `(batch, height, width)`.

    Example:
    >>> from keras_sspcab.applications import AutoEncoder
    >>> scoring = TiledScoring(AutoEncoder((32, 32, 1)), (48, 80))
    >>> score, anomaly_map = scoring(np.zeros((2, 48, 80, 1)))
    >>> tuple(anomaly_map.shape)
    (2, 48, 80)
    """

    def __init__(
        self,
        host: AnomalyModel,
        image_size: tuple[int, int],
        overlap: float = 0.25,
        skipped: tuple[int, ...] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.host = host
        # Not what the host makes of it with a calibration of its own.
        raw = host.get_layer("calibration").input
        self._raw = Untracked(keras.Model(host.input, list(raw)))
        height, width = host.input_shape[1:3]
        size = (image_size[0], image_size[1])
        self.grid = TileGrid(size, (height, width), overlap)
        self.skipped = tuple(skipped)
        numbers = range(len(self.grid.origins))
        self.looked_at = np.array([n for n in numbers if n not in self.skipped])
        if not len(self.looked_at):
            raise ValueError(
                "One tile must be looked at. Received: "
                f"skipped={self.skipped} of {len(numbers)} tiles"
            )

    def call(self, inputs: Any) -> Any:
        images = ops.cast(inputs, self.compute_dtype)
        if self.grid.image_size == self.grid.tile_size:
            return tuple(self._raw.value(images))
        _, width, channels = images.shape[1:]
        tile_height, tile_width = self.grid.tile_size
        origins = self.grid.origins[self.looked_at]
        count, num_images = len(origins), ops.shape(images)[0]
        # Pixels are found by their number, so that a batch of images need not
        # be copied for each of their tiles.
        pixels = ops.reshape(images, (-1, channels))
        rows, columns = np.arange(tile_height), np.arange(tile_width)
        window = (rows[:, np.newaxis] * width + columns).astype("int32")
        firsts = ops.convert_to_tensor(
            (origins[:, 0] * width + origins[:, 1]).astype("int32")
        )
        size = int(np.prod(self.grid.image_size))
        total = num_images * count
        at_once = tiles_at_once(count)
        steps = (total + at_once - 1) // at_once
        # The last step repeats the last tile.
        numbers = ops.minimum(ops.arange(steps * at_once), total - 1)
        numbers = ops.reshape(numbers, (steps, at_once))

        def score(step: Any) -> tuple[Any, Any]:
            image, tile = step // count, step % count
            first = image * size + ops.take(firsts, tile)
            where = ops.reshape(first, (at_once, 1, 1)) + window
            return tuple(self._raw.value(ops.take(pixels, where, axis=0)))

        scores, maps = ops.map(score, numbers)
        scores = ops.reshape(scores, (-1,))[:total]
        scores = ops.max(ops.reshape(scores, (-1, count)), axis=1)
        maps = ops.reshape(maps, (-1, tile_height, tile_width))[:total]
        maps = ops.reshape(maps, (-1, count, tile_height, tile_width))
        return scores, self._blend(maps)

    def _blend(self, maps: Any) -> Any:
        """Joins `(images, tiles, height, width)`, skipped ones are zero."""
        tile_height, tile_width = self.grid.tile_size
        height, width = self.grid.image_size
        rows, columns = map(len, self.grid.starts)
        if self.skipped:
            # All of them get the first of the empty ones that are put behind.
            places = np.full(rows * columns, len(self.looked_at), "int32")
            places[self.looked_at] = np.arange(len(self.looked_at))
            maps = ops.pad(maps, ((0, 0), (0, 1), (0, 0), (0, 0)))
            maps = ops.take(maps, places, axis=1)
        maps = ops.reshape(maps, (-1, rows, columns, tile_height, tile_width))
        maps = ops.transpose(maps, (0, 1, 3, 2, 4))
        bands = ops.reshape(
            maps, (-1, rows * tile_height, columns * tile_width)
        )
        bands = sum(
            ops.take(bands, index, axis=2) * weight
            for index, weight in self.grid.blending(1)
        )
        blended = sum(
            ops.take(bands, index, axis=1) * weight[:, np.newaxis]
            for index, weight in self.grid.blending(0)
        )
        return ops.reshape(blended, (-1, height, width))

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, Shape]:
        batch = input_shape[0]
        return (batch,), (batch, *self.grid.image_size)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "host": keras.saving.serialize_keras_object(self.host),
            "image_size": self.grid.image_size,
            "overlap": self.grid.overlap,
            "skipped": self.skipped,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TiledScoring":
        host = keras.saving.deserialize_keras_object(config["host"])
        return cls(**{**config, "host": host})
