import dataclasses

import pytest

from keras_sspcab.compare import tables
from keras_sspcab.compare.grid import Cell
from keras_sspcab.compare.page import page
from keras_sspcab.compare.results import Result
from keras_sspcab.compare.statistics import MeanAndSpread
from keras_sspcab.metrics.registry import METRICS

VALUES = {
    ("screw", "off"): [0.5, 0.7],
    ("screw", "on"): [0.6, 0.9],
    ("pill", "off"): [0.1, 0.2],
    ("pill", "on"): [0.3, 0.2],
    ("tile", "off"): [0.9, 0.9],
    ("tile", "on"): [1.0, 1.0],
}


def of_values(cell):
    value = VALUES[cell.data_class, cell.block][cell.seed]
    return {"pixel_auroc": value, "image_auroc": value / 2}


def rows(table):
    """Returns the cells of a Markdown table, by name of the row."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
    ]
    assert len({len(line) for line in lines}) == 1
    return {line[0]: line[1:] for line in lines}


def test_results_have_means_of_classes_groups_and_all(make):
    comparison = make(of_values, classes=("screw", "pill", "tile"))
    assert tables.result_table(comparison).splitlines() == [
        "| class | draem: pixel AUROC | draem: image AUROC |",
        "| --- | ---: | ---: |",
        # Standard deviations with n - 1, by hand: |a - b| / sqrt 2.
        "| screw | 60.0 ± 14.1 → 75.0 ± 21.2 | 30.0 ± 7.1 → 37.5 ± 10.6 |",
        "| pill | 15.0 ± 7.1 → 25.0 ± 7.1 | 7.5 ± 3.5 → 12.5 ± 3.5 |",
        "| tile | 90.0 ± 0.0 → 100.0 ± 0.0 | 45.0 ± 0.0 → 50.0 ± 0.0 |",
        "| *texture mean* | 90.0 ± 0.0 → 100.0 ± 0.0 "
        "| 45.0 ± 0.0 → 50.0 ± 0.0 |",
        # Per seed: 0.3, 0.45 and 0.45, 0.55.
        "| *object mean* | 37.5 ± 10.6 → 50.0 ± 7.1 "
        "| 18.8 ± 5.3 → 25.0 ± 3.5 |",
        # Per seed: 0.5, 0.6 and 1.9 / 3, 0.7.
        "| *overall mean* | 55.0 ± 7.1 → 66.7 ± 4.7 "
        "| 27.5 ± 3.5 → 33.3 ± 2.4 |",
    ]


def test_several_hosts_and_places_stand_side_by_side(make):
    value = {"off": 0.1, "early": 0.2, "late": 0.3}
    comparison = make(
        lambda cell: {"image_auroc": value[cell.block]},
        models=("draem", "cutpaste"),
        blocks=("off", "early", "late"),
        seeds=(0,),
    )
    found = rows(tables.result_table(comparison))
    assert found["screw"] == ["10.0 → 20.0 → 30.0"] * 2
    assert (
        tables.blocks_in_words(comparison.grid.blocks)
        == "without → early → late"
    )
    differences = tables.differences(comparison)
    metric = METRICS["image_auroc"]
    assert list(differences) == [("draem", metric), ("cutpaste", metric)]
    by_block = differences["draem", metric]
    assert list(by_block) == ["early", "late"]
    assert by_block["late"].mean == pytest.approx(0.2)


def test_missing_cells_are_dashes_and_named(make):
    lacking = Cell("pill", "draem", "on", 1)
    comparison = make(
        lambda cell: None if cell == lacking else of_values(cell),
        classes=("screw", "pill"),
    )
    found = rows(tables.result_table(comparison))
    assert found["pill"][0] == "15.0 ± 7.1 → 30.0 (1 of 2)"
    assert found["*overall mean*"][0] == "37.5 ± 10.6 → 45.0 (1 of 2)"
    text = page(comparison, [])
    assert "Missing, 1 of 8 runs: pill, draem with the block, seed 1." in text
    nothing = make(lambda cell: None if cell.block == "on" else of_values(cell))
    assert rows(tables.result_table(nothing))["screw"][0] == "60.0 ± 14.1 → -"
    (row,) = [
        line
        for line in tables.difference_table(nothing).splitlines()
        if "pixel AUROC" in line
    ]
    assert row.endswith("| on - off | - | - | - | 0 |")


def test_classes_without_masks_are_not_in_the_means(make):
    def metrics_of(cell):
        metrics = of_values(cell)
        if cell.data_class == "pill":
            del metrics["pixel_auroc"]
        return metrics

    comparison = make(metrics_of, classes=("screw", "pill"))
    found = rows(tables.result_table(comparison))
    assert found["pill"][0] == "- → -"
    assert found["*overall mean*"][0] == found["screw"][0]
    assert found["*overall mean*"][1] == "18.8 ± 5.3 → 25.0 ± 3.5"
    assert "No pixel AUROC for pill (are there no masks?)" in page(
        comparison, []
    )


def test_differences_say_interval_and_pairs(make):
    gains = {"on": (0.1, 0.2, 0.2, 0.0, 0.1, 0.1), "off": (0.0,) * 6}
    comparison = make(
        lambda cell: {"pixel_auroc": gains[cell.block][cell.seed]},
        classes=("screw", "tile"),
        seeds=tuple(range(6)),
        shown=("pixel_auroc",),
    )
    header, _, row = tables.difference_table(comparison).splitlines()
    assert header.endswith("| 95 % interval | detectable | pairs |")
    # A standard error of 0.0307, times 2.57 for the interval and times 3.51 for
    # what is detectable.
    assert row == (
        "| draem | pixel AUROC | on - off | +11.7 | +3.8 to +19.6 | 10.8 "
        "| 12, of 6 seeds |"
    )
    table = tables.difference_table(make(of_values))
    assert table.splitlines()[2].endswith(
        "| no interval: 2 seeds, at least 5 needed | - | 2, of 2 seeds |"
    )
    table = tables.difference_table(make(of_values, seeds=(0,)))
    assert "| no interval: 1 seed, at least 5 needed | - | 1, of" in table


def test_many_blocks_are_rows(make):
    blocks = ("off", "early", "late", "early+late", "mae@late")
    comparison = make(of_block, blocks=blocks, seeds=(0,))
    assert tables.result_table(comparison).splitlines()[2:] == [
        "| draem | 0.0 | 0.0 |",
        "| draem + early | 10.0 | 5.0 |",
        "| draem + late | 20.0 | 10.0 |",
        "| draem + early+late | 30.0 | 15.0 |",
        "| draem + mae@late | 40.0 | 20.0 |",
    ]
    assert page(comparison, []).startswith("# draem: 5 settings of the block\n")


def of_block(cell):
    blocks = ("off", "early", "late", "early+late", "mae@late")
    value = 0.1 * blocks.index(cell.block)
    return {"pixel_auroc": value, "image_auroc": value / 2}


def test_one_block_has_no_differences(make):
    comparison = make(of_values, blocks=("on",))
    assert "Paired differences" not in page(comparison, [])
    assert not any(tables.differences(comparison).values())


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0134, "+1.3"), (-0.0134, "-1.3"), (-0.0004, "0.0"), (0.0, "0.0")],
)
def test_differences_have_signs(value, text):
    assert tables.signed(value) == text


def test_percent():
    assert tables.percent(MeanAndSpread(0.8766, 0.0123, 3), 3) == "87.7 ± 1.2"
    assert tables.percent(MeanAndSpread(0.8766, None, 1), 1) == "87.7"
    assert tables.percent(MeanAndSpread(0.8766, None, 1), 3) == "87.7 (1 of 3)"
    assert tables.percent(None, 3) == "-"


def test_published_figures_stand_beside_classes_that_have_them(make):
    comparison = make(
        lambda cell: {"pixel_auroc": 0.5, "image_auroc": 0.5},
        classes=("mvtec_screw", "mine"),
        models=("autoencoder", "draem", "cutpaste"),
    )
    table, source = tables.published_table(comparison).split("\n\n")
    found = rows(table)
    assert found["class"][2] == "cutpaste: image AUROC"
    pairs = ["97.6 → 99.8", "93.9 → 97.9", "86.3 → 90.8"]
    assert found["mvtec_screw"] == pairs
    assert found["*mean of all 15 classes*"][0] == "97.3 → 97.2"
    assert "mine" not in found
    assert "arxiv.org/abs/2111.09099" in source
    unknown = make(of_values, models=("autoencoder",))
    assert tables.published_table(unknown) is None
    assert "Published" not in page(unknown, [])


def test_ensembles_have_a_table_of_their_own(make):
    comparison = make(of_values, models=("cutpaste",))
    assert "Ensembles" not in page(comparison, [])
    waiting = dataclasses.replace(comparison, ensembles={})
    assert "None has all its seeds yet" in page(waiting, [])
    ensembles = {
        Cell("screw", "cutpaste", block, 0): Result({"image_auroc": value})
        for block, value in (("off", 0.4), ("on", 0.45))
    }
    text = page(dataclasses.replace(comparison, ensembles=ensembles), [])
    part = text[text.index("## Ensembles of 2 seeds") :]
    assert "| screw | 40.0 → 45.0 |" in part
    # The paper's ensemble, not its single models.
    assert "| screw | 88.7 → 90.8 |" in part


def test_cells_of_tables_cannot_break_them():
    assert tables.markdown(["a|b"], [["c|d"]]).splitlines()[2] == "| c\\|d |"
