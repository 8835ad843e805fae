import types

import numpy as np
import pytest

from keras_sspcab.hosts import ScoredFrame
from keras_sspcab.runs import regions
from keras_sspcab.runs.parsing import load_config

VIDEO = types.SimpleNamespace(name="x")


def levels_of(monkeypatch, maps, limit=None, **settings):
    """Levels where held-out frames have these maps, and a model this limit."""
    values = {"region_smoothing": 0.0, "region_min_area": 1, **settings}
    named = {f"evaluation.{name}": value for name, value in values.items()}
    config = load_config(None, {**named, "calibration.pixel_quantile": 0.9})
    monkeypatch.setattr(
        regions, "count_clips", lambda videos, length, stride: len(maps)
    )
    source = types.SimpleNamespace(
        config=config,
        data=config.data,
        score_frames=lambda model, videos: (
            types.SimpleNamespace(outputs={"anomaly_map": m}) for m in maps
        ),
    )
    calibration = types.SimpleNamespace(pixel_threshold=limit)
    model = types.SimpleNamespace(calibration=calibration)
    return regions.measure_levels(model, source, [VIDEO] if maps else [])


def test_levels_hold_for_what_exceeds_normal_maps(monkeypatch):
    # The last column always errs, and all of it varies a little.
    border = np.zeros((8, 10), "float32")
    border[:, -1] = 50.0
    noise = np.random.default_rng(0).normal(size=(30, 8, 10))
    maps = border + noise.astype("float32")
    levels = levels_of(monkeypatch, list(maps), region_levels=3)
    np.testing.assert_allclose(levels.normal_map, maps.mean(0), rtol=1e-5)
    limit = np.quantile(maps - maps.mean(0), 0.9)
    np.testing.assert_allclose(
        levels.values, [limit / 2, limit, 2 * limit], rtol=1e-4
    )

    # A border as usual is no region, an error elsewhere is one.
    shown = border.copy()
    shown[2:4, 3:6] += 20.0
    boxes, scores = levels.cut(shown, (16, 10))
    high = {tuple(box) for box in boxes[scores > 10].astype(int).tolist()}
    assert high == {(3, 4, 5, 7)}

    smooth = levels_of(monkeypatch, list(maps), region_smoothing=0.2)
    assert smooth.values[0] < 0.5 * levels.values[0]


def test_many_maps_are_thinned_out(monkeypatch):
    monkeypatch.setattr(regions, "_MAX_MAPS", 4)
    maps = [np.full((4, 4), float(number)) for number in range(12)]
    levels = levels_of(monkeypatch, maps)
    np.testing.assert_allclose(levels.normal_map, np.mean([0, 3, 6, 9]))


@pytest.mark.parametrize("limit", [None, -1.0])
def test_without_normal_videos_or_threshold_nothing_is_cut(monkeypatch, limit):
    levels = levels_of(monkeypatch, [], limit)
    assert levels.describe().startswith("none")
    without = regions.Regions(levels.describe(), levels)
    without.add(VIDEO, ScoredFrame(0, 3, {"anomaly_map": np.ones((4, 4))}))
    assert not without.exist
    assert without.detections()["frame"].size == 0


def test_without_normal_videos_the_pixel_threshold_counts(monkeypatch):
    levels = levels_of(monkeypatch, [], 4.0)
    assert levels.values == (2.0, 4.0, 8.0, 16.0)
    assert levels.normal_map is None
    assert "half of the pixel threshold on" in levels.describe()
