import types

import numpy as np
import pytest

from keras_sspcab.cli import _regions
from keras_sspcab.cli._regions import (
    RegionLevels,
    Regions,
    cut_regions,
    measure_levels,
)
from keras_sspcab.runs import (
    CalibrationConfig,
    Config,
    DataConfig,
    EvaluationConfig,
)

SHARP = EvaluationConfig(region_smoothing=0.0, region_min_area=1)


def levels_of(monkeypatch, maps, **evaluation):
    """Levels where the held-out frames of a model have these maps."""

    def scored(model, videos, stride):
        assert (model, videos, stride) == ("model", ["video"], 2)
        for anomaly_map in maps:
            yield types.SimpleNamespace(outputs={"anomaly_map": anomaly_map})

    monkeypatch.setattr("keras_sspcab.applications.score_frames", scored)
    monkeypatch.setattr(
        "keras_sspcab.data.video.count_clips",
        lambda videos, length, stride: len(maps),
    )
    config = Config(
        data=DataConfig(stride=2),
        calibration=CalibrationConfig(pixel_quantile=0.9),
        evaluation=EvaluationConfig(**evaluation),
    )
    return measure_levels("model", ["video"], config)


def test_levels_hold_for_what_exceeds_normal_maps(monkeypatch):
    # The last column always errs, and all of it varies a little.
    border = np.zeros((8, 10), "float32")
    border[:, -1] = 50.0
    noise = np.random.default_rng(0).normal(size=(30, 8, 10))
    maps = border + noise.astype("float32")
    found = levels_of(monkeypatch, maps, region_smoothing=0.0, region_levels=3)
    np.testing.assert_allclose(found.normal_map, maps.mean(0), rtol=1e-5)
    limit = np.quantile(maps - maps.mean(0), 0.9)
    np.testing.assert_allclose(
        found.levels, [limit / 2, limit, 2 * limit], rtol=1e-4
    )
    assert limit < 2

    # A border as usual is no region, an error elsewhere is one.
    shown = border.copy()
    shown[2:4, 3:6] += 20.0
    table = cut_regions("x", [shown], found, SHARP, (8, 10))
    boxes = {
        tuple(int(table[name][row]) for name in ("x_min", "y_min"))
        for row in range(len(table["frame"]))
        if table["score"][row] > 10
    }
    assert boxes == {(3, 2)}


def test_levels_are_measured_on_smoothed_maps(monkeypatch):
    maps = np.random.default_rng(0).normal(size=(20, 16, 16))
    sharp, smooth = (
        levels_of(monkeypatch, maps.astype("float32"), region_smoothing=size)
        for size in (0.0, 0.1)
    )
    assert smooth.levels[0] < 0.5 * sharp.levels[0]


def test_so_many_maps_are_thinned_out(monkeypatch):
    monkeypatch.setattr(_regions, "_MAX_MAPS", 4)
    maps = [np.full((4, 4), float(number)) for number in range(12)]
    found = levels_of(monkeypatch, maps, region_smoothing=0.0)
    np.testing.assert_allclose(found.normal_map, np.mean([0, 3, 6, 9]))


@pytest.mark.parametrize("limit", [None, -1.0])
def test_without_normal_videos_or_threshold_nothing_is_cut(limit):
    model = types.SimpleNamespace(
        calibration=types.SimpleNamespace(pixel_threshold=limit)
    )
    regions = Regions(SHARP, measure_levels(model, [], Config()))
    assert not regions.exist
    assert regions.describe().startswith("none")


def test_without_normal_videos_the_pixel_threshold_counts():
    model = types.SimpleNamespace(
        calibration=types.SimpleNamespace(pixel_threshold=4.0)
    )
    levels = measure_levels(model, [], Config())
    assert levels == RegionLevels((2.0, 4.0, 8.0, 16.0), 0.0, levels.source)
    assert "half of the pixel threshold on" in Regions(SHARP, levels).describe()
