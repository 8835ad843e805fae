"""A small run folder, as `train` and `evaluate` leave it."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_sspcab.runs import files
from tests.report.browsing import set_width

COLUMNS = (
    "path",
    "label",
    "defect",
    "anomaly_score",
    "is_anomalous",
    "raw_score",
    "mask_path",
    "map_file",
)
BROWSER_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-prefers-reduced-motion",
)
THRESHOLD = 3.0
# A file name and a kind of defect that would break out of the markup.
HOSTILE = '"><img src=x onerror=alert(1)>.png'
HOSTILE_DEFECT = "<script>alert(2)</script>"

CONFIG = """
[data]
path = "/data/bolts"
image_size = [24, 32]
channels = 1

[model]
name = "autoencoder"
sspcab = "late"
smoothing = 5

[training]
epochs = 3
seed = 7
"""

# name, label, kind, score
IMAGES = [
    ("good/000.png", 0, "good", 0.2),
    ("good/001.png", 0, "good", 4.5),
    ("good/002.png", 0, "good", -0.7),
    ("good/003.png", 0, "good", 3.5),
    ("scratch/000.png", 1, "scratch", 9.0),
    ("scratch/001.png", 1, "scratch", 2.9),
    ("scratch/002.png", 1, "scratch", 1.1),
    (HOSTILE, 1, HOSTILE_DEFECT, 6.0),
]


def write_run(folder, label=True, maps=True, masks=True):
    """Writes a run of the images above; 64 by 48 pixels, maps 32 by 24."""
    rng = np.random.default_rng(0)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "predictions" / "maps").mkdir(parents=True)
    (folder / "config.toml").write_text(CONFIG, encoding="utf-8")
    rows = []
    for number, (name, truth, defect, score) in enumerate(IMAGES):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(90, 110, (48, 64), dtype="uint8")
        mask = np.zeros((48, 64), bool)
        heat = rng.normal(0.0, 0.5, (24, 32))
        if truth:
            mask[10:20, 30:50] = True
            pixels[mask] = 220
            heat[5:10, 15:25] += score
        Image.fromarray(pixels).save(path)
        mask_path = folder / "masks" / f"{number}.png"
        mask_path.parent.mkdir(exist_ok=True)
        Image.fromarray(mask).save(mask_path)
        map_file = f"maps/{number:06d}.npy"
        if maps:
            np.save(folder / "predictions" / map_file, heat.astype("float16"))
        rows.append(
            {
                "path": str(path),
                "label": truth if label else "",
                "defect": defect if label else "",
                "anomaly_score": score,
                "is_anomalous": int(score >= THRESHOLD),
                "raw_score": score / 10,
                "mask_path": str(mask_path) if truth and masks else "",
                "map_file": map_file if maps else "",
            }
        )
    files.write_csv(str(folder / "predictions/scores.csv"), COLUMNS, rows)
    write_metrics(folder, label)
    files.write_csv(
        str(folder / "history.csv"),
        ["epoch", "loss", "sspcab_loss"],
        [
            {"epoch": 1, "loss": 0.5, "sspcab_loss": 0.1},
            {"epoch": 2, "loss": 0.2, "sspcab_loss": 0.05},
            {"epoch": 3, "loss": 0.1, "sspcab_loss": 0.02},
        ],
    )
    record = {
        "evaluated": {"time": "2025-03-04T05:06:07+00:00", "split": "test"},
        "versions": {"keras-sspcab": "0.1.0", "keras": "3.99.0"},
    }
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def write_metrics(folder, label=True, calibrated=True):
    metrics = {
        "num_test_images": len(IMAGES),
        "calibration": {
            "threshold": THRESHOLD if calibrated else None,
            "pixel_threshold": 2.5 if calibrated else None,
        },
    }
    if label:
        metrics |= {
            "image_auroc": 0.6875,
            "image_ap": 0.8,
            "image_f1": 0.75,
            "image_f1_threshold": 1.1,
            "pixel_auroc": 0.987,
            "pixel_ap": 0.9,
            "aupro": 0.95,
            "per_defect": {
                "scratch": {"image_auroc": 0.6, "aupro": 0.91},
                HOSTILE_DEFECT: {"image_auroc": 1.0, "aupro": 0.97},
            },
        }
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")


@pytest.fixture
def run_folder(tmp_path):
    return write_run(tmp_path / "run")


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="needs selenium: pip install selenium"
    )
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs Chromium and its chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    profile = tmp_path_factory.mktemp("profile")
    for flag in (*BROWSER_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    logs = {"browser": "ALL", "performance": "ALL"}
    options.set_capability("goog:loggingPrefs", logs)
    service = webdriver.ChromeService(driver)
    browser = webdriver.Chrome(options=options, service=service)
    yield browser
    browser.quit()


@pytest.fixture
def page(browser, address):
    """A page in the browser; modules say which, by a fixture `address`."""
    set_width(browser, 1280)
    browser.get(address)
    return browser
