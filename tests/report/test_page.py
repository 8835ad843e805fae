import html.parser
import importlib.resources
import json
import os
import re

import numpy as np
import pytest

from keras_sspcab.metrics import aupro
from keras_sspcab.report import write_report
from keras_sspcab.report.charts import gather_pixels
from keras_sspcab.report.run_data import read_run
from tests.report.conftest import HOSTILE, write_metrics, write_run


def page_of(folder, **options):
    return write_report(folder, **options).read_text("utf-8")


def test_report_lies_in_the_run_folder(run_folder):
    path = write_report(str(run_folder))
    assert path == run_folder / "report.html"
    other = run_folder.parent / "other.html"
    assert write_report(run_folder, other) == other
    assert other.read_bytes() == path.read_bytes()
    assert path.stat().st_size < 500_000


def test_report_says_what_was_run_and_measured(run_folder):
    page = page_of(run_folder)
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


def test_nothing_is_loaded_from_outside(run_folder):
    page = page_of(run_folder)
    parser = Addresses()
    parser.feed(page)
    assert len(parser.found) > 16
    assert all(url.startswith(("data:", "#")) for url in parser.found)
    assert not re.search(r"https?://|@import|url\((?!#)", page)


def test_markup_in_names_is_text(run_folder):
    page = page_of(run_folder)
    assert "<img src=x" not in page
    assert "<script>alert" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in page
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in page
    assert HOSTILE not in page


def test_the_pixels_are_those_of_the_metrics(run_folder):
    run = read_run(run_folder)
    maps = [p.load_map() for p in run.predictions]
    masks = np.zeros((8, 24, 32), bool)
    masks[4:, 5:10, 15:25] = True
    assert gather_pixels(run).aupro() == pytest.approx(aupro(masks, maps))


def test_defects_without_a_mask_are_no_normal_pixels(tmp_path):
    run = read_run(write_run(tmp_path / "run", masks=False))
    pixels = gather_pixels(run)
    assert pixels.num_images == 4
    assert pixels.num_anomalous == 0


def test_a_test_set_with_a_shortcut_is_told(run_folder):
    warning = "Image statistics alone (brightness, contrast) separate"
    assert warning not in page_of(run_folder)
    path = run_folder / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics |= {"num_normal_images": 41, "num_defective_images": 119}
    metrics["image_statistics_auroc"] = 0.54
    path.write_text(json.dumps(metrics))
    assert warning not in page_of(run_folder)
    metrics["image_statistics_auroc"] = 0.013
    path.write_text(json.dumps(metrics))
    page = page_of(run_folder)
    assert page.index(warning) < page.index("defects found")
    assert "AUROC 0.99" in page


def test_without_maps(tmp_path):
    page = page_of(write_run(tmp_path / "run", maps=False))
    assert "There are no anomaly maps" in page
    assert 'id="opacity"' not in page
    assert page.count('class="photo"') == 8
    assert "Per-region overlap" not in page


def test_without_labels(tmp_path):
    page = page_of(write_run(tmp_path / "run", label=False, masks=False))
    assert "no image has a label" in page
    assert "most suspicious first" in page
    assert 'aria-label="Scores.' in page
    assert "ROC" not in page
    assert page.index("Flagged images") < page.index("Other images")


def test_without_history_and_record(run_folder):
    os.remove(run_folder / "history.csv")
    os.remove(run_folder / "run.json")
    page = page_of(run_folder)
    assert "no <code>history.csv</code>" in page
    assert ">Date<" in page


def test_without_calibration(run_folder):
    write_metrics(run_folder, calibrated=False)
    page = page_of(run_folder)
    assert "not calibrated: nothing is flagged" in page
    assert "largest value of all maps" in page


def test_without_the_images(run_folder):
    (run_folder / "images/good/001.png").unlink()
    page = page_of(run_folder)
    assert page.count("The image file cannot be read.") == 1
    assert page.count('class="heat"') == 8


def test_missing_values_in_the_history(run_folder):
    (run_folder / "history.csv").write_text(
        "epoch,loss,sspcab_loss,val_loss\n1,0.5,,\n2,nan,0.2,\n3,0.1,0.1,0.2\n"
    )
    page = page_of(run_folder)
    assert "training: from 0.5 to 0.1; validation: from 0.2 to 0.2" in page


def test_an_empty_history(run_folder):
    (run_folder / "history.csv").write_text("epoch,loss\n")
    assert "no training curves" in page_of(run_folder)


def test_the_gallery_is_limited(run_folder):
    page = page_of(run_folder, max_images=3)
    assert page.count('<figure class="card">') == 3
    assert "3 of 8 images" in page
    assert '<figure class="card">' not in page_of(run_folder, max_images=0)
    with pytest.raises(ValueError, match="max_images=-1"):
        write_report(run_folder, max_images=-1)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("config.toml", "keras-sspcab train"),
        ("metrics.json", "keras-sspcab evaluate"),
        ("predictions/scores.csv", "keras-sspcab evaluate"),
    ],
)
def test_missing_files_are_named(run_folder, name, command):
    (run_folder / name).unlink()
    with pytest.raises(ValueError, match=command) as error:
        write_report(run_folder)
    assert name in str(error.value)
    assert not (run_folder / "report.html").exists()


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="no run folder.*nothing"):
        write_report(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", b"{", "metrics.json is broken: no valid JSON"),
        ("metrics.json", b"[1]", "metrics.json is broken"),
        ("config.toml", b"[", "config.toml is no valid TOML"),
        ("history.csv", b"epoch,loss\n1,x\n", "history.csv is broken.*'x'"),
        ("predictions/scores.csv", b"path,label\n", "no column anomaly_score"),
        (
            "predictions/scores.csv",
            b"path,label,defect,anomaly_score,is_anomalous\na,0,,nan,0\n",
            "scores.csv is broken: line 2: the anomaly_score is nan",
        ),
        (
            "predictions/scores.csv",
            b"path,label,defect,anomaly_score,is_anomalous\na,3,,1,0\n",
            "line 2: the label must be 0, 1 or empty, not 3",
        ),
        (
            "predictions/scores.csv",
            b"path,label,defect,anomaly_score,is_anomalous\na,1,,1,0\n",
            "scores.csv is broken: 1 images, where metrics.json counts 8",
        ),
        ("predictions/maps/000001.npy", b"", "000001.npy is broken"),
        ("predictions/maps/000001.npy", b"zzz", "000001.npy is broken"),
    ],
)
def test_broken_files_are_named_and_the_old_page_stays(
    run_folder, name, content, message
):
    (run_folder / "report.html").write_text("old")
    (run_folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        write_report(run_folder)
    assert (run_folder / "report.html").read_text() == "old"
    assert not list(run_folder.glob("*.tmp*"))
    assert not list(run_folder.glob(".*"))


def test_a_failing_disk_leaves_the_old_page(run_folder, monkeypatch):
    (run_folder / "report.html").write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(run_folder)
    assert (run_folder / "report.html").read_text() == "old"
    assert not list(run_folder.glob(".*"))


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in parts
    ]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("front", "back"),
    [
        ("ink", "page"),
        ("muted", "page"),
        ("muted", "surface"),
        ("accent", "page"),
        ("normal", "good-tint"),
        ("anomalous", "bad-tint"),
    ],
)
def test_text_has_enough_contrast(theme, front, back):
    folder = importlib.resources.files("keras_sspcab.report")
    style = (folder / "report.css").read_text("utf-8")
    ratio = [
        luminance(re.findall(rf"--{name}: (#\w{{6}})", style)[theme])
        for name in (front, back)
    ]
    high, low = max(ratio) + 0.05, min(ratio) + 0.05
    assert high / low >= 4.5  # WCAG 2.2, level AA
