import dataclasses
import html.parser
import os
import re

import numpy as np
import pytest
from PIL import Image

from keras_sspcab.report import page as report_page
from keras_sspcab.report import write_report
from keras_sspcab.scoring import Calibration, DriftComparison, DriftReference
from tests.report.run_folders import (
    HOSTILE,
    IMAGES,
    change_metrics,
    page_of,
    write_image_run,
)


def test_report_lies_in_the_image_run(image_run):
    path = write_report(str(image_run))
    assert path == image_run / "report.html"
    other = image_run.parent / "other.html"
    assert write_report(image_run, other) == other
    assert other.read_bytes() == path.read_bytes()
    assert path.stat().st_size < 500_000


def test_report_says_what_was_run_and_measured(image_run):
    page = page_of(image_run)
    for fact in (
        "bolts",
        "autoencoder",
        "late",
        "24 \u00d7 32 px, gray",
        "2025-03-04 05:06",
        "3.99.0",
        "0.688",
        "0.987",
        "0.950",
    ):
        assert fact in page, fact


class Addresses(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        names = ("src", "srcset", "href", "xlink:href", "action", "poster")
        self.found += [value for name, value in attrs if name in names]


def test_nothing_is_loaded_from_outside(image_run):
    page = page_of(image_run)
    parser = Addresses()
    parser.feed(page)
    assert len(parser.found) > 16
    assert all(url.startswith(("data:", "#")) for url in parser.found)
    assert not re.search(r"https?://|@import|url\((?!#)", page)


def test_markup_in_names_is_text(image_run):
    page = page_of(image_run)
    assert "<img src=x" not in page
    assert "<script>alert" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in page
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in page
    assert HOSTILE not in page


def test_curves_of_earlier_runs_are_left_out(tmp_path):
    folder = write_image_run(tmp_path / "run", curves=False)
    page = page_of(folder)
    assert "predictions/curves.json" in page
    assert f"keras-sspcab evaluate {folder}" in page
    assert 'id="curves"' not in page
    assert page.count('class="heat"') == 8


def test_a_test_set_with_a_shortcut_is_told(image_run):
    warning = "Image statistics alone (brightness, contrast) separate"
    assert warning not in page_of(image_run)
    counts = {"num_normal_images": 41, "num_defective_images": 119}
    change_metrics(image_run, **counts, image_statistics_auroc=0.54)
    assert warning not in page_of(image_run)
    change_metrics(image_run, image_statistics_auroc=0.013)
    page = page_of(image_run)
    assert page.index(warning) < page.index("defects found")
    assert "AUROC 0.99" in page


def test_notes_on_the_masks_are_shown(image_run):
    note = "1 masks of defective images are empty: <a>.png"
    change_metrics(image_run, notes=[note])
    assert f"{note.replace('<a>', '&lt;a&gt;')}.</p>" in page_of(image_run)


def test_a_detector_that_has_failed_is_told(image_run):
    assert "does not locate" not in page_of(image_run)
    change_metrics(image_run, pixel_auroc=0.43, aupro=0.02)
    page = page_of(image_run)
    failure = "The map does not locate these defects: pixel AUROC 0.43"
    assert page.index(failure) < page.index("defects found")


@pytest.mark.parametrize(
    ("name", "options", "place"),
    [
        ("mnad", "", "penultimate"),
        ("hf2vad", "", "memory"),
        ("autoencoder", 'sspcab = ["early", "late"]', "early, late"),
        (
            "autoencoder",
            'sspcab = "late"\n[model.sspcab_options]\ntype = "ssmctb"\n'
            "mask_size = 3",
            "late (type ssmctb, mask_size 3)",
        ),
        ("multiscale_padim", "", "none"),
        ("unknown_host", "", None),
    ],
)
def test_the_block_is_named_where_the_host_has_it(
    image_run, name, options, place
):
    config = f'[data]\npath = "a"\n[model]\nname = "{name}"\n{options}'
    (image_run / "config.toml").write_text(config)
    fact = re.search(r"<dt>SSPCAB</dt><dd>(.*?)</dd>", page_of(image_run))
    assert (fact and fact[1]) == place


def test_conflicts_of_score_and_pixels_are_said(image_run):
    conflict = "pixels above their threshold, image score below"
    limits = {"threshold": 1e3, "pixel_threshold": 2.5}
    change_metrics(image_run, calibration=limits)
    assert conflict in page_of(image_run)
    # Its own threshold of peaks is higher than that of pixels.
    change_metrics(image_run, calibration={**limits, "peak_threshold": 1e3})
    assert conflict not in page_of(image_run)


def test_uncertainty_of_the_threshold_is_stated(image_run):
    change_metrics(
        image_run,
        calibration={
            "threshold": 3.0,
            "pixel_threshold": 2.5,
            "quantile": 0.99,
            "num_images": 4,
            "decision": "either",
            "false_alarm_interval": [0.0, 1.0],
        },
    )
    text = page_of(image_run)
    assert "flagged from score 3 on or from a pixel of 2.5 on" in text
    # Beta(1, 4) at 97.5 %, for both criteria.
    assert "0 to 100 % of normal images" in text
    assert "95 % interval from 4 images" in text


def test_thresholds_to_choose_from(image_run):
    change_metrics(
        image_run,
        calibration={"threshold": 3.0, "pixel_threshold": 2.5},
        image_f1_threshold=1.25,
    )
    text = page_of(image_run)
    for name in ("in use", "best F1 of these images", "above all normal ones"):
        assert name in text
    assert "--threshold SCORE" in text


def test_without_maps(tmp_path):
    page = page_of(write_image_run(tmp_path / "run", maps=False))
    assert "There are no anomaly maps" in page
    assert 'id="opacity"' not in page
    assert page.count('class="photo"') == 8
    assert "Per-region overlap" not in page


def test_without_labels(tmp_path):
    page = page_of(write_image_run(tmp_path / "run", label=False, masks=False))
    assert "no image has a label" in page
    assert "most suspicious first" in page
    assert 'aria-label="Scores.' in page
    assert "ROC" not in page
    assert page.index("Flagged images") < page.index("Other images")


def test_without_history_and_record(image_run):
    os.remove(image_run / "history.csv")
    os.remove(image_run / "run.json")
    page = page_of(image_run)
    assert "no <code>history.csv</code>" in page
    assert ">Date<" in page


def test_without_calibration(image_run):
    change_metrics(image_run, calibration=None)
    page = page_of(image_run)
    assert "not calibrated: nothing is flagged" in page
    assert "largest value of all maps" in page


def test_without_the_images(image_run):
    (image_run / "images/good/001.png").unlink()
    page = page_of(image_run)
    assert page.count("The image file cannot be read.") == 1
    assert page.count('class="heat"') == 8


def test_the_gallery_is_limited(image_run):
    page = page_of(image_run, max_images=3)
    assert page.count('<figure class="card ') == 3
    assert "3 of 8 images" in page
    assert '<figure class="card ' not in page_of(image_run, max_images=0)
    with pytest.raises(ValueError, match="max_images=-1"):
        write_report(image_run, max_images=-1)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("config.toml", "keras-sspcab train"),
        ("metrics.json", "keras-sspcab evaluate"),
        ("predictions/scores.csv", "keras-sspcab evaluate"),
    ],
)
def test_missing_files_are_named(image_run, name, command):
    (image_run / name).unlink()
    with pytest.raises(ValueError, match=command) as error:
        write_report(image_run)
    assert name in str(error.value)
    assert not (image_run / "report.html").exists()


def test_many_pictures_lie_in_a_folder_beside(image_run, monkeypatch):
    monkeypatch.setattr(report_page, "MAX_EMBEDDED", 7)
    folder = image_run / "report_pictures"
    page = page_of(image_run)
    named = re.findall(r'src="(report_pictures/\d{6}\.(?:jpeg|png))"', page)
    assert sorted(named) == sorted(
        f"{folder.name}/{path.name}" for path in folder.iterdir()
    )
    assert len(named) == 2 * len(IMAGES)
    assert "data:image/" not in page
    for path in folder.iterdir():
        with Image.open(path) as picture:
            picture.verify()
    # What is not of a report is never removed.
    (folder / "mine.png").write_text("mine")
    with pytest.raises(ValueError, match="report_pictures .* other files"):
        write_report(image_run)
    page_of(image_run, max_images=7)
    assert (folder / "mine.png").read_text() == "mine"
    (folder / "mine.png").unlink()
    assert "report_pictures" not in page_of(image_run, max_images=7)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", b"{", "metrics.json is broken: no valid JSON"),
        ("config.toml", b"[", "config.toml is no valid TOML"),
        ("history.csv", b"epoch,loss\n1,x\n", "history.csv is broken.*'x'"),
        ("predictions/scores.csv", b"path,label\n", "scores.csv is broken"),
        ("predictions/curves.json", b"[1]", "curves.json is broken"),
        ("predictions/maps/000001.npy", b"zzz", "000001.npy is broken"),
    ],
)
def test_broken_files_are_named_and_the_old_page_stays(
    image_run, name, content, message
):
    (image_run / "report.html").write_text("old")
    (image_run / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        write_report(image_run)
    assert (image_run / "report.html").read_text() == "old"
    assert not list(image_run.glob("*.tmp*"))
    assert not list(image_run.glob(".*"))


def test_inputs_stand_beside_those_of_the_calibration(image_run):
    page = page_of(image_run)
    assert "Do the images look like" not in page
    rng = np.random.default_rng(0)
    reference = DriftReference.measure(
        {name: rng.normal(0.5, 0.1, 60) for name in ("brightness", "sharpness")}
    )
    dark = DriftComparison.of(
        reference,
        {"brightness": np.full(20, 0.123), "sharpness": np.full(20, 0.5)},
    )
    drifts = [drift.to_dict() for drift in dark.drifts(reference)]
    calibration = Calibration(threshold=3.0, reference=reference)
    change_metrics(
        image_run,
        calibration=calibration.summary(),
        drift={**dataclasses.asdict(dark), "drifts": drifts},
    )
    page = page_of(image_run)
    assert "Images are darker than normal: brightness 0.123" in page
    assert "Look at the light" in page
    assert "beside the 60 normal ones of the calibration" in page
    assert page.count("<b>differs</b>") == 1
