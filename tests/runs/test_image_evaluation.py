"""Metrics of a model whose anomaly map is the brightness of the image."""

import shutil
import warnings

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from keras_sspcab.data import ImageSample
from keras_sspcab.data.masks import load_mask, read_mask
from keras_sspcab.progress import Progress
from keras_sspcab.runs.image_evaluation import evaluate_images
from keras_sspcab.runs.parsing import load_config
from keras_sspcab.runs.sources import source_of
from keras_sspcab.scoring import Calibration, DriftReference, input_statistics


class Brightness:
    counted = None

    def counted_pixels(self, images):
        shape = np.shape(images)[:3]
        where = self.counted
        return None if where is None else np.broadcast_to(where, shape)

    def predict_on_batch(self, images):
        maps = np.asarray(images).mean(-1)
        scores = maps.max((1, 2))
        return {
            "anomaly_map": maps,
            "anomaly_score": scores,
            "raw_score": scores,
            "is_anomalous": scores > 0.8,
        }


@pytest.fixture
def evaluate(tmp_path):
    def evaluate(root, image_size=64, masks="nearest", reference=None):
        settings = {
            "evaluation.masks": masks,
            "data.path": str(root),
            "data.image_size": image_size,
            "data.channels": 1,
        }
        source = source_of(load_config(None, settings))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            samples, split, _ = source.samples_to_evaluate()
        folder = tmp_path / "predictions"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        model = Brightness()
        model.calibration = Calibration(reference=reference)
        measured = evaluate_images(
            model, source, samples, split, str(folder), Progress()
        )
        texts = [str(warning.message) for warning in caught]
        return measured.metrics, [*texts, *measured.gaps]

    return evaluate


def test_only_whole_pixels_count_if_so_set(evaluate, tmp_path):
    """As in DRAEM's published code: resized by OpenCV, then rounded down."""
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    expected = []
    for number, width in enumerate((60, 45, 1)):
        for part in ("train/good", "test/good", "test/hole"):
            path = tmp_path / "set" / part / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = rng.integers(0, 256, (90, 110), "uint8")
            Image.fromarray(noise).save(path)
        mask = np.zeros((90, 110), "uint8")
        mask[20 + number : 70, 11 : 11 + width] = 255
        path = tmp_path / f"set/ground_truth/hole/{number}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
        expected.append((cv2.resize(mask, (32, 32)) / 255).astype("uint8"))
        sample = ImageSample("", 1, "hole", str(path))
        whole, is_lost, _ = load_mask(sample, (32, 32), "whole")
        np.testing.assert_array_equal(whole, expected[-1])
        assert is_lost == (number == 2)
    metrics, texts = evaluate(tmp_path / "set", 32, masks="whole")
    # Lost defects count, as normal pixels: the image is not left out.
    maps = [np.load(p) for p in sorted(tmp_path.glob("predictions/maps/*"))]
    truth = [*np.zeros((3, 32, 32), "uint8"), *expected]
    scores = roc_auc_score(np.ravel(truth), np.ravel(maps))
    assert metrics["pixel_auroc"] == pytest.approx(scores, abs=1e-5)
    assert any("1 masks are empty at 32x32" in text for text in texts)


@pytest.mark.parametrize("name", ["u16mask", "jpgmask", "loco"])
def test_masks_of_all_kinds(faults, evaluate, name):
    root = faults / "datasets" / name
    metrics, texts = evaluate(root)
    # The scratches are brighter than all else, if the masks are right.
    assert metrics["pixel_auroc"] == 1.0
    assert metrics["pixel_ap"] == 1.0
    assert metrics["aupro"] == pytest.approx(1.0)
    assert metrics["notes"] == []
    assert not [text for text in texts if "mask" in text]
    for path in (root / "ground_truth/scratch").iterdir():
        assert read_mask(str(path)).sum() == 128


def test_small_defects_do_not_vanish(faults, evaluate):
    metrics, texts = evaluate(faults / "datasets/tiny")
    (note,) = metrics["notes"]
    assert "masks of 64x64 pixels would pass over them" in note
    assert note in texts
    # Shrunk, most of a defect is in the pixels that stand for it.
    assert metrics["pixel_auroc"] > 0.99
    whole, _ = evaluate(faults / "datasets/tiny", image_size=512)
    assert whole["notes"] == []
    assert whole["pixel_auroc"] == 1.0


@pytest.fixture
def part(tmp_path):
    """Three defective images and two normal ones; defects are bright."""
    root = tmp_path / "part"
    mask = np.zeros((16, 16), "uint8")
    mask[4:8, 4:9] = 255
    dark = np.full((16, 16), 50, "uint8")
    dark[0] = 60

    def write(name, pixels):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    for i in range(3):
        write(f"train/good/{i}.png", dark)
        write(f"test/hole/{i}.png", np.maximum(dark, mask))
        write(f"ground_truth/hole/{i}_mask.png", mask)
    for i in range(2):
        write(f"test/good/{i}.png", dark)
    return root


def test_pixels_outside_of_regions_do_not_count(part, evaluate, monkeypatch):
    above = np.arange(16)[:, np.newaxis] < 8
    for path in (part / "test/good").iterdir():
        bright = np.where(above, 50, 255) * np.ones((16, 16))
        Image.fromarray(bright.astype("uint8")).save(path)
    worse, _ = evaluate(part, 16)
    monkeypatch.setattr(Brightness, "counted", above)
    better, _ = evaluate(part, 16)
    assert worse["pixel_auroc"] < 0.95
    assert better["pixel_auroc"] == better["aupro"] == 1.0


def test_masks_that_contradict_their_labels_count_for_nothing(part, evaluate):
    before, texts = evaluate(part, 16)
    assert before["pixel_auroc"] == 1.0
    assert not [text for text in texts if "mask" in text]
    masks = part / "ground_truth"
    empty = masks / "hole/1_mask.png"
    Image.new("L", (16, 16)).save(empty)
    (masks / "good").mkdir()
    full = masks / "good/0_mask.png"
    Image.new("L", (16, 16), 255).save(full)
    metrics, texts = evaluate(part, 16)
    for label, path in ("defective", empty), ("normal", full):
        (note,) = (n for n in metrics["notes"] if f"{label} images" in n)
        assert str(path) in note
        assert texts.count(note) == 1
    # Their pixels would be wrong on either side.
    assert {**metrics, "notes": []} == before

    # Normal pixels of 1, not 0.
    pixels = np.where(np.asarray(Image.open(masks / "hole/2_mask.png")), 2, 1)
    Image.fromarray(pixels.astype("uint8")).save(masks / "hole/2_mask.png")
    metrics, texts = evaluate(part, 16)
    assert any("mark most of their image: " in n for n in metrics["notes"])
    assert metrics["pixel_auroc"] < 1.0


def test_masks_must_fit_their_images(part, evaluate):
    path = part / "ground_truth/hole/1_mask.png"
    Image.new("L", (8, 16), 255).save(path)
    with pytest.raises(ValueError, match=r"1_mask\.png: mask of 16x8 pixels"):
        evaluate(part, 16)


@pytest.mark.parametrize("light", [0.5, 0.9])
def test_normal_images_that_look_otherwise_are_told(evaluate, tmp_path, light):
    rng = np.random.default_rng(0)
    for kind in ("train/good", "test/good", "test/scratch"):
        (tmp_path / kind).mkdir(parents=True)
        # Defects do not count, however they look.
        gain = 0.1 if kind == "test/scratch" else 1.0
        for i in range(20):
            pixels = gain * (
                100 + rng.normal(0, 5) + rng.normal(0, 9, (64, 64))
            )
            image = Image.fromarray(pixels.clip(0, 255).astype("uint8"))
            image.save(tmp_path / kind / f"{i}.png")
    pixels = 100 + rng.normal(0, 5, (50, 1)) + rng.normal(0, 9, (50, 64 * 64))
    normal = (pixels * light / 0.5 / 255).reshape(50, 64, 64, 1)
    reference = DriftReference.measure(input_statistics(normal))
    metrics, gaps = evaluate(tmp_path, reference=reference)
    assert metrics["drift"]["num_images"] == 20
    told = {drift["statistic"] for drift in metrics["drift"]["drifts"]}
    assert ("brightness" in told) == (light == 0.9)
    texts = [gap for gap in gaps if "Images are darker than normal" in gap]
    assert bool(texts) == (light == 0.9)
