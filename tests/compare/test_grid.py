import os

import pytest

from keras_sspcab.compare.grid import (
    Cell,
    Grid,
    parse_blocks,
    parse_names,
    parse_seeds,
)


def test_cells_come_seed_by_seed_and_pair_by_pair():
    grid = Grid(("a", "b"), ("m", "n"), ("off", "on"), (3, 1))
    cells = list(grid)
    assert len(cells) == len(grid) == len(set(cells)) == 16
    assert [cell.seed for cell in cells] == [3] * 8 + [1] * 8
    assert cells[:3] == [
        Cell("a", "m", "off", 3),
        Cell("a", "m", "on", 3),
        Cell("a", "n", "off", 3),
    ]


def test_cells_have_names_and_folders_of_their_own():
    cell = Cell("screw", "draem", "on", 0)
    assert str(cell) == "screw, draem with the block, seed 0"
    assert cell.folder == os.path.join("runs", "screw", "draem-on-seed0")
    assert "draem without the block" in str(Cell("a", "draem", "off", 0))
    assert "draem with the block (late)" in str(Cell("a", "draem", "late", 0))
    blocks = ("off", "on", "late", "early+late", "ssmctb", "ssmctb@late")
    grid = Grid(("a", "b"), ("m", "n"), blocks, (0, 1, 10))
    assert len({cell.folder for cell in grid}) == len(grid)


@pytest.mark.parametrize(
    ("blocks", "reference"),
    [(("off", "on"), "off"), (("on", "off"), "off"), (("late", "on"), "late")],
)
def test_reference_is_without_the_block_if_there(blocks, reference):
    assert Grid(("a",), ("m",), blocks, (0,)).reference == reference


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("3", (0, 1, 2)),
        ("1", (0,)),
        ("3,5,7", (3, 5, 7)),
        (" 7, 3 ", (7, 3)),
        ("7,", (7,)),
        ("0,4294967295", (0, 2**32 - 1)),
    ],
)
def test_seeds_are_a_number_or_a_list(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "x", "1.5", "3,x", ",", "3,,5", "-1,2", "4294967296,"],
)
def test_other_seeds_are_refused(text):
    with pytest.raises(ValueError, match="--seeds must be how many seeds"):
        parse_seeds(text)


def test_one_large_seed_is_told_from_many_seeds():
    with pytest.raises(ValueError, match="One seed alone is written as 7,"):
        parse_seeds("4242")


def test_lists_hold_nothing_twice_and_no_gaps():
    assert parse_names("a, b", "--models") == ("a", "b")
    with pytest.raises(ValueError, match="--models holds something twice"):
        parse_names("a,b,a", "--models")
    with pytest.raises(ValueError, match="--seeds holds something twice"):
        parse_seeds("1,1")
    with pytest.raises(ValueError, match="--models must be names"):
        parse_names("a,", "--models")


def test_blocks_are_places_and_variants():
    text = "off,late,early+late,mae@early+late,ssmctb"
    assert parse_blocks(text) == tuple(text.split(","))
    with pytest.raises(ValueError, match="--sspcab says 'off' where there is"):
        parse_blocks("none,on")
    for block in ("@late", "mae@", "a@b@c", "early+", "+late", "a@early+"):
        with pytest.raises(ValueError, match=r"such as ssmctb or ssmctb@late"):
            parse_blocks(f"off,{block}")
