"""The same pixels in training, evaluation, prediction and exports."""

import functools
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_sspcab.data import BadFilesError, image_dataset, scan_image_folder
from keras_sspcab.export.runners import SavedModelRunner
from keras_sspcab.export.scorer import load_scorer
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.runs import ConfigError, Run
from keras_sspcab.runs.outputs import read_image_scores
from keras_sspcab.scale.shards import ScoringJob, ShardScorer
from tests.runs.listening import Listener

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SETTINGS = {
    "data.image_size": 32,
    "data.channels": 1,
    "data.patch_size": 0,
    "data.validation_fraction": 0.4,
    "model.filters": [4, 4, 2],
    "model.smoothing": 3,
    "training.epochs": 1,
}


def train(path, data, progress=None, **settings):
    run = Run.create(
        path,
        data=data,
        model="autoencoder",
        settings={**SETTINGS, **settings},
    )
    run.train(progress=progress)
    return run


@pytest.fixture(scope="module")
def wide(faults, tmp_path_factory):
    """A run on files of 16 bits that hold 12, and what it said."""
    listener = Listener()
    path = tmp_path_factory.mktemp("runs") / "wide"
    return train(path, faults / "datasets/bits12", listener), listener.texts


def test_the_range_of_16_bits_is_found_stated_and_kept(wide):
    run, texts = wide
    assert any("hold 12" in text and "4095" in text for text in texts)
    assert run.model.preprocessing == Preprocessing(4095)
    kept = {"white_level": 4095, "resize": "bilinear", "fit": "stretch"}
    assert run.record["data"]["preprocessing"] == kept
    assert run.evaluate()["preprocessing"] == kept


def assert_paths_agree(run, folder):
    """Scores the test images of a run on every path; returns these scores."""
    run.evaluate()
    rows = read_image_scores(run)
    paths = [row.path for row in rows]
    expected = [row.score for row in rows]
    predicted = [row["anomaly_score"] for row in run.predict(paths)]
    np.testing.assert_allclose(predicted, expected, rtol=1e-5)

    version = run.export("savedmodel", folder / "export").path
    files = np.array([tf.io.read_file(p).numpy() for p in paths], object)
    served = SavedModelRunner(version).run_encoded(files)["anomaly_score"]
    np.testing.assert_allclose(served, expected, rtol=1e-3, atol=1e-3)

    parquet = pytest.importorskip("pyarrow.parquet")
    for number, model in enumerate((run.path, version)):
        load = functools.partial(load_scorer, model)
        scorer = load()
        assert scorer.preprocessing == run.model.preprocessing
        job = ScoringJob.start(paths, load, scorer, folder / str(number))
        ShardScorer(job, scorer).score(0)
        table = parquet.read_table(job.folder.part(0)).to_pydict()
        scores = dict(zip(table["path"], table["anomaly_score"], strict=True))
        np.testing.assert_allclose(
            [scores[path] for path in paths], expected, rtol=1e-3, atol=1e-3
        )
    return dict(zip(paths, expected, strict=True))


def test_every_path_scales_16_bits_alike(wide, faults, tmp_path):
    # As 8 bits and more would have shown: not nearly black.
    samples = scan_image_folder(faults / "datasets/bits12").test
    (batch,) = image_dataset(samples, 64, 1, preprocessing=Preprocessing(4095))
    levels = np.unique(batch.numpy())
    assert len(levels) > 400
    assert 0.2 < levels.mean() < 0.5
    assert_paths_agree(wide[0], tmp_path)


@pytest.mark.slow
def test_every_path_resizes_as_published(tmp_path):
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    for number in range(14):
        split = "train/good" if number < 10 else "test/hole"
        path = tmp_path / "noise" / split / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        # So fine that it is another image with antialiasing.
        image = rng.integers(0, 256, (97, 61), "uint8")
        Image.fromarray(image).save(path)
    run = train(
        tmp_path / "run", tmp_path / "noise", **{"data.resize": "opencv"}
    )
    assert run.model.preprocessing == Preprocessing(resize="opencv")
    scores = assert_paths_agree(run, tmp_path)
    images = [cv2.resize(cv2.imread(path, 0), (32, 32)) for path in scores]
    batch = np.stack(images)[..., None].astype("float32") / 255
    outputs = run.model.predict_on_batch(batch)
    np.testing.assert_allclose(
        outputs["anomaly_score"], list(scores.values()), rtol=1e-4
    )
    run.report()
    report = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "<dt>Resizing</dt><dd>opencv</dd>" in report
    with pytest.raises(ConfigError, match="started with data.resize='opencv'"):
        Run(run.path, {"data.resize": "area"})


def test_brighter_files_are_refused_by_name(wide, tmp_path):
    run, _ = wide
    path = tmp_path / "bright.png"
    Image.fromarray(np.full((64, 64), 4096, "uint16")).save(path)
    with pytest.raises(BadFilesError, match=r"bright\.png: values up to 4096"):
        run.predict(path)
    version = run.export("savedmodel", tmp_path / "export").path
    file = np.array([path.read_bytes()], object)
    with pytest.raises(tf.errors.InvalidArgumentError, match="up to 4096"):
        SavedModelRunner(version).run_encoded(file)


def test_the_white_level_can_be_set(faults, tmp_path):
    data = faults / "datasets/bits12"
    run = train(tmp_path / "run", data, **{"data.white_level": 16383})
    assert run.model.preprocessing == Preprocessing(16383)
    with pytest.raises(BadFilesError, match="values up to 1490"):
        train(tmp_path / "other", data, **{"data.white_level": 1023})
    with pytest.raises(ConfigError, match="white_level"):
        train(tmp_path / "third", data, **{"data.white_level": 5000})


def test_orientation_is_applied_on_every_path(faults, tmp_path):
    data = tmp_path / "exif"
    shutil.copytree(faults / "datasets/exif", data)
    run = train(tmp_path / "run", data)
    assert run.model.preprocessing == Preprocessing()
    turned = sorted((data / "test/scratch").glob("*.jpg"))
    upright, files = [], []
    for path in turned:
        with Image.open(path) as image:
            assert image.getexif()[0x0112] == 3
            stream = tmp_path / f"{path.stem}.png"
            ImageOps.exif_transpose(image).save(stream)
        upright.append(stream)
        files.append(path.read_bytes())
    expected = run.predict(upright)
    for row, other in zip(run.predict(turned), expected, strict=True):
        assert row["anomaly_score"] == pytest.approx(
            other["anomaly_score"], abs=0.05
        )
    metrics = run.evaluate()
    maps = [np.load(row.map_path) for row in read_image_scores(run)]
    assert metrics["num_defective_images"] == len(turned) == 4
    version = run.export("savedmodel", tmp_path / "export").path
    served = SavedModelRunner(version).run_encoded(np.array(files, object))
    rows = [r for r in read_image_scores(run) if r.defect == "scratch"]
    for row, score, anomaly_map in zip(
        rows, served["anomaly_score"], served["anomaly_map"], strict=True
    ):
        assert row.score == pytest.approx(score, abs=0.01)
        assert np.abs(np.load(row.map_path) - anomaly_map).max() < 0.05
    assert len(maps) == 8


def test_a_folder_in_another_format_holds_the_same(faults, tmp_path):
    pixels = {}
    for form in ("PNG", "TIFF", "WEBP", "BMP"):
        data = tmp_path / form / "exif"
        shutil.copytree(
            faults / "datasets/exif/ground_truth", data / "ground_truth"
        )
        for source in (faults / "datasets/exif").glob("t*/**/*.*"):
            target = data / source.relative_to(faults / "datasets/exif")
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(source) as image:
                upright = ImageOps.exif_transpose(image).convert("L")
            suffix = f".{form.lower()}".replace("tiff", "tif")
            lossless = {"lossless": True} if form == "WEBP" else {}
            upright.save(target.with_suffix(suffix), form, **lossless)
        folder = scan_image_folder(data)
        assert sum(s.mask_path is not None for s in folder.test) == 4
        pixels[form] = [
            np.concatenate([*image_dataset(samples, 48, 1)])
            for samples in (folder.train, folder.test)
        ]
    assert len(pixels["PNG"][1]) == 8
    for found in pixels.values():
        for one, other in zip(found, pixels["PNG"], strict=True):
            np.testing.assert_array_equal(one, other)


def test_images_of_the_faults(faults):
    from keras_sspcab.data.image_files import read_pixels

    def read(name, **options):
        path = str(faults / "images" / name)
        return read_pixels(path, 3, **options).numpy()

    for name in ("palette.bmp", "bit1.bmp", "cmyk.jpg"):
        with Image.open(faults / "images" / name) as image:
            expected = np.asarray(image.convert("RGB")) / 255
        tolerance = 0.01 if name == "cmyk.jpg" else 1e-6
        np.testing.assert_allclose(read(name), expected, atol=tolerance)
    ramp = read("gray12in16.png", preprocessing=Preprocessing(4095))
    assert ramp.max() == 1.0
    assert len(np.unique(ramp)) > 256
    for name, reason in (
        ("cut.jpg", "broken or truncated JPEG"),
        ("empty.png", "the file is empty"),
        ("html.png", "not an image that can be read"),
    ):
        with pytest.raises(ValueError, match=reason):
            read(name)
