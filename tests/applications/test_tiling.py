import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.hosts.tiling import (
    TiledScoring,
    TileGrid,
    tiles_at_once,
)

sides = st.integers(8, 60)


@given(st.tuples(sides, sides), st.tuples(sides, sides), st.floats(0, 0.5))
def test_tiles_cover_the_image_and_overlap_enough(image, tile, overlap):
    tile = tuple(min(t, i) for t, i in zip(tile, image, strict=True))
    grid = TileGrid(image, tile, overlap)
    for starts, side, length in zip(grid.starts, image, tile, strict=True):
        assert starts[0] == 0
        assert starts[-1] == side - length
        assert (np.diff(starts) <= max(1, length * (1 - overlap))).all()
    # An image of numbers comes back from its tiles.
    numbers = np.arange(image[0] * image[1]).reshape(image)
    blended = blend(grid, grid.cut(numbers))
    np.testing.assert_allclose(blended, numbers, rtol=1e-5, atol=1e-3)


def blend(grid, tiles):
    """Sums tiles, weighted by how far from their edge a pixel is."""
    weights = np.outer(
        *(
            np.minimum(np.arange(n), n - 1 - np.arange(n)) + 0.5
            for n in grid.tile_size
        )
    )
    total, sums = np.zeros(grid.image_size), np.zeros(grid.image_size)
    height, width = grid.tile_size
    for (y, x), tile in zip(grid.origins, tiles, strict=True):
        total[y : y + height, x : x + width] += tile * weights
        sums[y : y + height, x : x + width] += weights
    return total / sums


@pytest.fixture(scope="module")
def host():
    keras.utils.set_random_seed(0)
    return AutoEncoder((32, 32, 3), filters=(4, 4, 4))


# Also more images and tiles than the host gets at a time.
@pytest.mark.parametrize("count", [1, 3])
def test_scores_and_maps_are_those_of_the_tiles(host, count):
    images = np.random.default_rng(0).random((count, 50, 91, 3), "float32")
    scores, maps = map(np.asarray, TiledScoring(host, (50, 91))(images))
    grid = TileGrid((50, 91), (32, 32))
    for image, score, anomaly_map in zip(images, scores, maps, strict=True):
        outputs = host.predict_on_batch(grid.cut(image))
        assert score == pytest.approx(outputs["raw_score"].max(), rel=1e-5)
        expected = blend(grid, outputs["anomaly_map"])
        np.testing.assert_allclose(anomaly_map, expected, rtol=1e-4, atol=1e-6)


def test_what_is_skipped_does_not_count(host):
    image = np.random.default_rng(0).random((1, 32, 64, 3), "float32")
    image[:, :, 32:] *= 3  # the worse tile
    layer = TiledScoring(host, (32, 64), overlap=0, skipped=(1,))
    score, anomaly_map = layer(image)
    alone = host.predict_on_batch(image[:, :, :32])
    np.testing.assert_allclose(score, alone["raw_score"], rtol=1e-5)
    assert not np.asarray(anomaly_map)[:, :, 32:].any()


@pytest.mark.parametrize(
    ("size", "at_once"),
    [((96, 160), 5), ((96, 64), 6), ((128, 128), 8), ((160, 160), 5)],
)
def test_the_host_sees_few_tiles_at_a_time(host, monkeypatch, size, at_once):
    sizes = []
    layer = TiledScoring(host, size, overlap=0)
    raw = layer._raw.value

    def spy(tiles):
        sizes.append(tiles.shape[0])
        return raw(tiles)

    monkeypatch.setattr(layer._raw, "value", spy)
    layer(np.zeros((4, *size, 3), "float32"))
    assert set(sizes) == {at_once}


@given(st.integers(1, 2000))
def test_hardly_a_tile_is_looked_at_twice(count):
    size = tiles_at_once(count)
    wasted = -count % size
    assert size <= 8
    assert size >= min(4, count)
    assert wasted <= 3
    assert wasted <= max(1, 0.1 * count)


def test_refuses_what_does_not_fit(host):
    with pytest.raises(ValueError, match="32 x 32 pixels, images of 20 x 64"):
        TiledScoring(host, (20, 64))
    with pytest.raises(ValueError, match="`overlap`"):
        TiledScoring(host, (64, 64), overlap=0.6)
    with pytest.raises(ValueError, match=r"skipped=\(0,\) of 1 tiles"):
        TiledScoring(host, (32, 32), skipped=(0,))
