import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from keras_sspcab.data import BadFilesError, Preprocessing, image_files
from keras_sspcab.runs.prediction import check_options, predict_images
from keras_sspcab.scoring import Calibration


class Brightness:
    """A detector whose score is the mean of an image."""

    preprocessing = Preprocessing()
    input_shape = (None, 8, 8, 3)
    calibration = Calibration()

    def counted_pixels(self, images):
        return None

    def predict_on_batch(self, images):
        scores = images.numpy().mean((1, 2, 3))
        return {
            "anomaly_score": scores,
            "raw_score": scores,
            "is_anomalous": scores > 1,
            "anomaly_map": images.numpy().mean(-1),
        }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(40):
        pixels = np.full((8, 8, 3), i, "uint8")
        Image.fromarray(pixels).save(tmp_path / f"in/{i:02d}.png")
    return tmp_path / "in"


def test_each_file_is_read_once(folder, monkeypatch):
    reads, read = [], image_files.read_image
    monkeypatch.setattr(
        image_files, "read_image", lambda path: reads.append(path) or read(path)
    )
    rows = predict_images(Brightness(), [folder])
    scores = [row["anomaly_score"] for row in rows]
    np.testing.assert_allclose(scores, np.arange(40) / 255, rtol=1e-6)
    # The first eight before, for what their brightest values are.
    assert sorted(reads[8:]) == [row["path"] for row in rows]


def test_heat_maps_of_a_killed_prediction_are_removed(folder, tmp_path):
    left = tmp_path / "maps/.maps.0123456789abcdef.tmp"
    left.mkdir(parents=True)
    maps = []

    class Looking(Brightness):
        def predict_on_batch(self, images):
            with pytest.raises(ValueError, match="in use"):
                predict_images(Brightness(), [folder], tmp_path / "maps")
            maps.append(os.listdir(tmp_path / "maps"))
            return super().predict_on_batch(images)

    predict_images(Looking(), [folder / "00.png"], tmp_path / "maps")
    (before,) = maps
    assert left.name not in before
    assert all(name.startswith(".") for name in before)
    assert os.listdir(tmp_path / "maps") == ["000000-00.png"]


def test_a_file_in_place_of_heat_maps_is_told_at_once(folder, tmp_path):
    (tmp_path / "maps").touch()
    with pytest.raises(FileExistsError, match="maps"):
        # The model is not asked.
        predict_images(
            SimpleNamespace(
                preprocessing=Preprocessing(), input_shape=(None, 8, 8, 3)
            ),
            [folder],
            tmp_path / "maps",
        )


@pytest.mark.parametrize("place", ["in", "in/maps", "in/../in/maps"])
def test_heat_maps_among_what_is_scored_are_refused(folder, tmp_path, place):
    """The next prediction or training would take heat maps for images."""
    maps = tmp_path / place
    with pytest.raises(ValueError, match="outside of those"):
        predict_images(Brightness(), iter([folder]), maps)
    predict_images(Brightness(), [folder / "00.png"], tmp_path / "in-maps")
    assert len(os.listdir(folder)) == 40


def test_files_count_once_and_have_names_of_any_length(tmp_path):
    name = "\N{CJK UNIFIED IDEOGRAPH-96F6}" * 80
    (tmp_path / "in").mkdir()
    paths = [tmp_path / f"in/{name}.png", tmp_path / "in/b.png"]
    for path, value in zip(paths, (10, 20), strict=True):
        Image.fromarray(np.full((8, 8, 3), value, "uint8")).save(path)
    listed = [*paths, paths[0]]
    rows = predict_images(Brightness(), listed, tmp_path / "maps")
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    assert [round(255 * row["anomaly_score"]) for row in rows] == [10, 20]
    assert all(os.path.isfile(row["heat_map"]) for row in rows)
    # What a folder holds besides is listed once.
    rows = predict_images(Brightness(), [paths[1], tmp_path / "in"])
    assert [row["path"] for row in rows] == [str(paths[1]), str(paths[0])]
    with pytest.raises(ValueError, match=r"must be UTF-8.*udcff"):
        predict_images(Brightness(), [tmp_path / "a\udcff.png"])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("image", {"results": "out"}),
        ("image", {"stride": 2}),
        ("video", {"heat_maps": "out"}),
        ("video", {"on_error": "skip"}),
        ("video", {"product": "nut"}),
        ("objects", {"product": "nut"}),
        ("objects", {"stride": 2}),
    ],
)
def test_options_of_the_other_kind_are_refused(kind, options):
    model = SimpleNamespace(kind=kind, name="m")
    check_options(model, on_error="raise", results=None)
    with pytest.raises(ValueError, match="has no meaning. Received: "):
        check_options(model, **options)


def test_nothing_is_written_where_a_file_is_bad(folder, tmp_path):
    maps = tmp_path / "maps"
    for name in ("07.png", "39.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    with pytest.raises(BadFilesError) as caught:
        predict_images(Brightness(), [folder], maps)
    assert len(caught.value.problems) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    with pytest.warns(UserWarning, match=r"(?s)07\.png: broken.*38 images"):
        rows = predict_images(Brightness(), [folder], maps, on_error="skip")
    assert len(rows) == 38
    assert {row["heat_map"] for row in rows} == {*map(str, maps.iterdir())}
    with pytest.raises(ValueError, match="on_error='ignore'"):
        predict_images(Brightness(), [folder], on_error="ignore")
