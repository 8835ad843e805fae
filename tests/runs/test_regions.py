import types

import numpy as np
import pytest

from keras_sspcab.hosts import ScoredFrame
from keras_sspcab.runs import Config, ObjectsConfig, regions
from keras_sspcab.runs.parsing import load_config
from keras_sspcab.runs.regions import (
    MapRegions,
    ObjectRegions,
    RegionLevels,
    measure_levels,
)

VIDEO = types.SimpleNamespace(name="x")


def evaluation(**settings):
    values = {"region_smoothing": 0.0, "region_min_area": 1, **settings}
    named = {f"evaluation.{name}": value for name, value in values.items()}
    return load_config(None, named).evaluation


def levels_of(monkeypatch, maps, **settings):
    """Levels where the held-out frames of a model have these maps."""
    monkeypatch.setattr(
        regions,
        "count_clips",
        lambda videos, length, stride: len(maps),
    )
    config = Config(evaluation=evaluation(**settings)).model_copy(
        update={"calibration": types.SimpleNamespace(pixel_quantile=0.9)}
    )
    source = types.SimpleNamespace(
        config=config,
        data=config.data,
        score_frames=lambda model, videos: (
            types.SimpleNamespace(outputs={"anomaly_map": m}) for m in maps
        ),
    )
    return measure_levels("model", source, [VIDEO])


def uncalibrated(limit):
    calibration = types.SimpleNamespace(pixel_threshold=limit)
    return types.SimpleNamespace(calibration=calibration)


def test_levels_hold_for_what_exceeds_normal_maps(monkeypatch):
    # The last column always errs, and all of it varies a little.
    border = np.zeros((8, 10), "float32")
    border[:, -1] = 50.0
    noise = np.random.default_rng(0).normal(size=(30, 8, 10))
    maps = border + noise.astype("float32")
    levels = levels_of(monkeypatch, maps, region_levels=3)
    np.testing.assert_allclose(levels.normal_map, maps.mean(0), rtol=1e-5)
    limit = np.quantile(maps - maps.mean(0), 0.9)
    np.testing.assert_allclose(
        levels.values, [limit / 2, limit, 2 * limit], rtol=1e-4
    )

    # A border as usual is no region, an error elsewhere is one.
    shown = border.copy()
    shown[2:4, 3:6] += 20.0
    boxes, scores = MapRegions(levels, evaluation()).cut(shown, (16, 10))
    found = {tuple(box) for box in boxes[scores > 10].astype(int).tolist()}
    assert found == {(3, 4, 5, 7)}


def test_levels_are_measured_on_smoothed_maps(monkeypatch):
    maps = np.random.default_rng(0).normal(size=(20, 16, 16))
    sharp, smooth = (
        levels_of(monkeypatch, maps.astype("float32"), region_smoothing=size)
        for size in (0.0, 0.1)
    )
    assert smooth.values[0] < 0.5 * sharp.values[0]


def test_many_maps_are_thinned_out(monkeypatch):
    monkeypatch.setattr(regions, "_MAX_MAPS", 4)
    maps = [np.full((4, 4), float(number)) for number in range(12)]
    levels = levels_of(monkeypatch, maps)
    np.testing.assert_allclose(levels.normal_map, np.mean([0, 3, 6, 9]))


@pytest.mark.parametrize("limit", [None, -1.0])
def test_without_normal_videos_or_threshold_nothing_is_cut(limit):
    source = types.SimpleNamespace(config=Config(), data=Config().data)
    levels = measure_levels(uncalibrated(limit), source, [])
    without = MapRegions(levels, evaluation())
    without.add(VIDEO, ScoredFrame(0, 3, {"anomaly_map": np.ones((4, 4))}))
    assert not without.exist
    assert without.describe().startswith("none")
    assert without.detections()["frame"].size == 0


def test_without_normal_videos_the_pixel_threshold_counts():
    source = types.SimpleNamespace(config=Config(), data=Config().data)
    levels = measure_levels(uncalibrated(4.0), source, [])
    assert levels == RegionLevels((2.0, 4.0, 8.0, 16.0), None, levels.source)
    text = MapRegions(levels, evaluation()).describe()
    assert "half of the pixel threshold on" in text


def test_objects_are_regions():
    objects = ObjectRegions(ObjectsConfig(boxes="a/boxes", with_motion=True))
    assert objects.describe() == "objects of boxes, and what else moves"
    for frame, count in ((0, 0), (4, 2)):
        outputs = {
            "boxes": np.arange(4.0 * count).reshape(count, 4),
            "object_scores": np.full(count, 2.5, "float32"),
        }
        objects.add(VIDEO, ScoredFrame(0, frame, outputs))
    table = objects.detections()
    assert table["video"].tolist() == ["x", "x"]
    assert table["frame"].tolist() == [4, 4]
    assert table["x_max"].tolist() == [2.0, 6.0]
    assert table["score"].tolist() == [2.5, 2.5]
