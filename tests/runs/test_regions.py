import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_sspcab.data import Video
from keras_sspcab.hosts import ScoredFrame
from keras_sspcab.runs import regions
from keras_sspcab.runs.config import EvaluationConfig
from keras_sspcab.runs.parsing import load_config
from tests.metrics.oracles import flood_fill_components

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


def test_tracks_are_of_all_abnormal_videos(tmp_path):
    (tmp_path / "a.txt").write_text("0,1,2,3,4,5\n")
    labels = {
        Video("a", "a", tracks=str(tmp_path / "a.txt")): np.array([0, 1]),
        Video("b", "b"): np.array([0, 0]),
    }
    table, origin = regions.ground_truth_tracks(labels)
    assert (table["video"].tolist(), origin) == (["a"], "files")
    labels[Video("c", "c")] = np.array([0, 1])
    assert regions.ground_truth_tracks(labels) == (None, "none")


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


def cut(anomaly_map, levels, min_area=1, frame_size=None):
    evaluation = EvaluationConfig(
        region_smoothing=0.0, region_min_area=min_area
    )
    levels = regions.RegionLevels(levels, None, "", evaluation)
    return levels.cut(anomaly_map, frame_size or anomaly_map.shape)


@given(
    hnp.arrays("float32", (5, 6), elements=st.integers(0, 4).map(float)),
    st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0]), min_size=1, max_size=3),
    st.integers(1, 3),
)
def test_regions_are_those_of_a_flood_fill(anomaly_map, levels, min_area):
    expected = {}
    for level in levels:
        for component in flood_fill_components(anomaly_map >= level):
            if len(component) >= min_area:
                ys, xs = zip(*component, strict=True)
                box = (min(xs), min(ys), max(xs), max(ys))
                value = max(anomaly_map[pixel] for pixel in component)
                expected[box] = max(value, expected.get(box, value))
    boxes, scores = cut(anomaly_map, tuple(sorted(set(levels))), min_area)
    found = dict(zip(map(tuple, boxes), scores, strict=True))
    assert len(found) == len(scores)
    assert found == pytest.approx(expected, abs=1e-6)


def test_boxes_are_scaled_to_the_frame():
    anomaly_map = np.zeros((4, 4))
    anomaly_map[1, 2:4] = 1.0
    # Columns 2 and 3 of 4 are pixels 6 to 11 of 12.
    for size, box in (((8, 12), [6, 2, 11, 3]), ((2, 2), [1, 0.5, 1, 0])):
        boxes, _ = cut(anomaly_map, (0.5,), frame_size=size)
        np.testing.assert_allclose(boxes, [box], atol=1e-12)
    boxes, _ = cut(np.ones((3, 7)), (0.5,), frame_size=(50, 90))
    np.testing.assert_allclose(boxes, [[0, 0, 89, 49]], atol=1e-12)
