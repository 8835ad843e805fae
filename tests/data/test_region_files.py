import numpy as np
import pytest
from PIL import Image

from keras_sspcab.data import read_regions

BOX = '[[region]]\nname = "a"\nbox = [0.25, 0.0, 0.5, 1.0]\n'


@pytest.fixture
def read(tmp_path):
    def read(content, size=(4, 8)):
        path = tmp_path / "regions.toml"
        path.write_text(content)
        return read_regions(path, size)

    return read


def test_shapes_in_shares_and_in_pixels(read):
    of_shares = read(BOX)
    assert of_shares.labels.tolist() == 4 * [[0, 0, 1, 1, 0, 0, 0, 0]]
    # The photo is four times as wide as the input.
    of_pixels = read(
        "size = [32, 16]\n"
        '[[region]]\nname = "a"\nbox = [8, 0, 16, 16]\n'
        "[[region]]\npolygon = [[16, 0], [32, 0], [32, 16]]\n"
    )
    assert of_pixels.labels.tolist() == [
        [0, 0, 1, 1, 2, 2, 2, 2],
        [0, 0, 1, 1, 0, 2, 2, 2],
        [0, 0, 1, 1, 0, 0, 2, 2],
        [0, 0, 1, 1, 0, 0, 0, 2],
    ]
    assert [part.name for part in of_pixels.parts] == ["a", "region 2"]


def test_later_regions_and_exclusions_count(read):
    found = read(
        '[[region]]\nname = "all"\nbox = [0, 0, 1, 1]\nthreshold = 4\n'
        '[[region]]\nname = "left"\nbox = [0, 0, 0.25, 1]\nquantile = 0.9\n'
        "[[exclude]]\nbox = [0.5, 0, 0.75, 1]\n"
    )
    assert found.labels.tolist() == 4 * [[2, 2, 1, 1, 0, 0, 1, 1]]
    assert found.parts[0].threshold == 4
    assert found.parts[1].quantile == 0.9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"it has no \[\[region\]\]"),
        ("[[region]]", "region 1 needs a box or a polygon"),
        ("regions = 1", "unknown key 'regions'. Did you mean 'region'?"),
        (BOX + "colour = 1", "region 1 has an unknown key 'colour'"),
        (BOX.replace("0.25", "0.75"), "the box of region 1 must be"),
        (BOX.replace("0.25", "true"), "the box of region 1 must be"),
        (BOX.replace("0.5", "200"), "region 1 leaves the image"),
        ("size = 3\n" + BOX, r"size must be \[width, height\]"),
        (BOX + BOX, "names of regions must differ"),
        (BOX + BOX.replace('"a"', '"b"'), "no pixel of 4 x 8 lies in: a"),
        ("[[region]]\npolygon = [[0, 0], [1, 1]]", "three points"),
        ("[[region]]\npolygon = [[0, 0], [1, 1], 3]", r"of points \[x, y\]"),
        (BOX + "quantile = 2", "`quantile`"),
        ("[region", "regions.toml cannot be used"),
        ("region = 5", r"region must be a list of tables.*\[\[region\]\]"),
        ("region = [5]", "region 1 must be a table. Received: 5"),
        (BOX.replace("[[region]]", "[region]"), "region must be a list of"),
        ("exclude = true\n" + BOX, "exclude must be a list of .*True"),
    ],
)
def test_says_what_is_wrong(read, content, message):
    with pytest.raises(ValueError, match=f"(?i){message}"):
        read(content)


def test_files_may_begin_with_a_mark_of_their_encoding(tmp_path):
    text = '[[region]]\nname = "left"\nbox = [0.0, 0.0, 0.5, 1.0]'
    (tmp_path / "a.toml").write_text(text, encoding="utf-8-sig")
    labels = read_regions(tmp_path / "a.toml", (1, 4)).labels
    assert labels.tolist() == [[1, 1, 0, 0]]


def test_masks(tmp_path):
    mask = np.zeros((40, 80), "uint8")
    mask[:, :20] = 255
    mask[:10, 20:30] = 255  # half of a pixel of the input
    Image.fromarray(mask).save(tmp_path / "mask.png")
    found = read_regions(tmp_path / "mask.png", (4, 8))
    assert found.inside.tolist() == [
        [True, True, True] + 5 * [False],
        *(3 * [[True, True] + 6 * [False]]),
    ]
    Image.fromarray(0 * mask).save(tmp_path / "empty.png")
    with pytest.raises(ValueError, match=r"empty.png cannot be used: .* empty"):
        read_regions(tmp_path / "empty.png", (4, 8))
    with pytest.raises(ValueError, match="missing.png"):
        read_regions(tmp_path / "missing.png", (4, 8))
