import dataclasses
import os
import re

import numpy as np
import pytest
from PIL import Image

from keras_sspcab.compare.conditions import (
    describe_conditions,
    format_seconds,
    without_folders,
)
from keras_sspcab.compare.figure import write_figure
from keras_sspcab.compare.grid import Cell
from keras_sspcab.compare.page import page, write_files
from keras_sspcab.compare.results import Result
from tests.browser import check_page, style, texts
from tests.cli.cells import read_csv


def of_seed(cell):
    value = 0.5 + 0.1 * cell.seed + 0.05 * (cell.block == "on")
    metrics = {"pixel_auroc": value, "image_auroc": value}
    return metrics | ({"extra": 3.0} if cell.seed else {})


def test_files_are_complete(make, tmp_path):
    comparison = make(
        of_seed,
        classes=("screw", "tile"),
        seconds={"training": 2.0, "evaluation": 1.0},
    )
    comparison = dataclasses.replace(
        comparison,
        ensembles={Cell("tile", "draem", "on", 0): Result({"image_ap": 0.25})},
    )
    root = tmp_path / "out"
    paths = write_files(str(root), comparison, ["one", "two"])
    assert sorted(os.listdir(root)) == sorted(map(os.path.basename, paths))
    assert sorted(os.listdir(root)) == [
        "comparison-ensembles.csv",
        "comparison.csv",
        "comparison.html",
        "comparison.md",
        "comparison.png",
        "comparison.svg",
    ]
    rows = read_csv(root / "comparison.csv")
    assert len(rows) == 8
    assert rows[0] == {
        "class": "screw",
        "model": "draem",
        "block": "off",
        "seed": "0",
        "pixel_auroc": "0.5",
        "image_auroc": "0.5",
        "extra": "",
        "training_seconds": "2.0",
        "parameters": "1000",
    }
    assert {row["extra"] for row in rows if row["seed"] == "1"} == {"3.0"}
    assert read_csv(root / "comparison-ensembles.csv") == [
        {"class": "tile", "model": "draem", "block": "on", "image_ap": "0.25"}
    ]
    text = (root / "comparison.md").read_text()
    assert text.startswith("# draem: without → with SSPCAB\n")
    assert text.endswith("## Conditions\n\n- one\n- two\n")
    html = (root / "comparison.html").read_text()
    assert "<title>draem: without → with SSPCAB</title>" in html
    assert "<li>two</li>" in html
    assert html.count("<table>") == text.count("| --- |")
    # Behind the results, before the next section.
    assert html.index("<svg") < html.index("<h2>Paired differences")


def test_the_page_is_accessible_and_asks_no_other_host(make, tmp_path, browser):
    comparison = make(of_seed, classes=("screw", "<b>tile</b>"))
    write_files(str(tmp_path), comparison, ["Command: `x --data " + "a" * 99])
    for _ in check_page(browser, (tmp_path / "comparison.html").as_uri()):
        assert len(texts(browser, "h2")) == 4
        assert style(browser, ".chart svg", "display") == "block"


def test_nothing_is_drawn_before_there_is_a_result(make, tmp_path):
    write_files(str(tmp_path), make(lambda cell: None), [])
    assert sorted(os.listdir(tmp_path)) == [
        "comparison.csv",
        "comparison.html",
        "comparison.md",
    ]


def test_test_sets_that_statistics_separate_are_named(make):
    def metrics_of(cell):
        counts = {"num_normal_images": 41, "num_defective_images": 119}
        value = 0.013 if cell.data_class == "screw" else 0.5
        return {"image_auroc": 1.0, "image_statistics_auroc": value, **counts}

    text = page(make(metrics_of, classes=("screw", "tile")), [])
    warning = "**screw**: Image statistics alone (brightness, contrast) separ"
    assert text.count("Image statistics alone") == text.count(warning) == 1
    assert text.index(warning) < text.index("## Paired differences")


# === Figure ===


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"seeds": (0,), "blocks": ("on", *"abcde"), "shown": ("image_ap",)},
        {"classes": tuple("abcdefgh"), "models": ("draem", "cutpaste")},
        {"shown": ("image_auroc", "pixel_auroc", "image_ap")},
    ],
    ids=["two panels", "places", "wide", "three metrics"],
)
def test_figure_of_any_grid(make, tmp_path, options):
    comparison = make(
        lambda cell: (
            None
            if (cell.seed, cell.block) == (1, "on")
            else {"pixel_auroc": 0.5, "image_auroc": 0.25, "image_ap": 0.1}
        ),
        **options,
    )
    write_figure(comparison, [str(tmp_path / "a.png")])
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert pixels.std() > 5
    # Nothing is cut off.
    for edge in (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]):
        assert edge.min() == 255


def test_figure_shows_every_value(make, tmp_path):
    comparison = make(of_seed, shown=("image_auroc",), seeds=(0, 1, 2))
    path = tmp_path / "a.svg"
    write_figure(comparison, [str(path)])
    svg = path.read_text()
    # A mark is a reference to its shape: the values, and those of the legend.
    marks = re.findall(r"<use [^>]*style=\"fill: (#\w+)", svg)
    assert marks.count("#ffffff") == 3 + 1
    assert marks.count("#1f5fbf") == 3 + 1
    again = tmp_path / "b.svg"
    write_figure(comparison, [str(again)])
    assert again.read_bytes() == path.read_bytes()


# === Conditions ===


def test_conditions_name_all_that_counts_but_no_folder(make):
    comparison = make(
        of_seed,
        blocks=("off", "on"),
        hardware="CPU, 2 cores",
        versions={"keras": "3.1", "pillow": "9", "tensorflow": "2.20"},
        seconds={"training": 100.0, "evaluation": 2.0},
    )
    lines = describe_conditions(
        comparison,
        "keras-sspcab compare",
        {"draem": {"training.epochs": 3, "model.textures": "/home/me/dtd"}},
        {"mae": {"loss": "mae", "dilation_rate": 0}},
    )
    assert lines == [
        "Command: `keras-sspcab compare`",
        "Settings of draem: training.epochs=3, model.textures='dtd'",
        "Block mae: loss='mae', dilation_rate=0",
        "Parameters of draem: 1,000 (off), 1,000 (on)",
        "Seeds: 0, 1",
        "Images of screw: 20 normal ones to train and calibrate on, 5 normal "
        "and 7 defective ones to test",
        "Hardware: CPU, 2 cores",
        "Versions: tensorflow 2.20, keras 3.1",
        "Time: 7 min of training and calibration, 8 s of evaluation",
    ]


def test_conditions_that_differ_are_counted(make):
    comparison = make(of_seed, hardware="A")
    cell = next(iter(comparison.grid))
    other = {**comparison.results, cell: Result({}, {"hardware": "B"})}
    comparison = dataclasses.replace(comparison, results=other)
    lines = describe_conditions(comparison, "x", {}, {})
    assert "Hardware: B (1 cells); A (3 cells)" in lines
    assert "Settings of draem: its defaults" in lines


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/a/b/c/", "c"),
        ("../x", "x"),
        ("gs://bucket/x", "x"),
        ("mixed_float16", "mixed_float16"),
        (["/a/b", 3], ["b", 3]),
        ({"x": "/a/b"}, {"x": "b"}),
        (0.5, 0.5),
    ],
)
def test_folders_are_reduced_to_their_names(value, expected):
    assert without_folders(value) == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (95, "2 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds, text):
    assert format_seconds(seconds) == text
