import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from keras_sspcab.data import (
    check_images,
    scan_image_folder,
    textures,
    write_texture_folder,
)
from keras_sspcab.data.defects import DEFECTS, draw_defect

SMALL = {
    "image_size": 48,
    "num_train": 4,
    "num_test_good": 2,
    "num_test_defective": 7,
}


def contents(root):
    root = pathlib.Path(root)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def pixels(path):
    return np.asarray(Image.open(path))


def test_layout_counts_and_masks(tmp_path):
    root = tmp_path / "deep/er/demo"
    folder = write_texture_folder(root, **SMALL)
    assert os.listdir(tmp_path / "deep/er") == ["demo"]
    assert folder == scan_image_folder(root, layout="mvtec")
    card = json.loads((root / "dataset.json").read_text())
    assert card["photograph"] == "skimage.data.brick (CC0)"
    assert card["arguments"]["defects"] == list(DEFECTS)
    assert set(card["files"]) == set(contents(root)) - {"dataset.json"}
    assert len(folder.train) == 4
    defects = [sample.defect for sample in folder.test]
    assert {d: defects.count(d) for d in defects} == {
        "good": 2,
        "scratch": 2,
        "stain": 2,
        "hole": 1,
        "foreign": 1,
        "blur": 1,
    }
    samples = folder.train + folder.test
    assert check_images(samples) == samples
    for sample in folder.test:
        if sample.label:
            values = np.unique(pixels(sample.mask_path)).tolist()
            assert values == [0, 255]
    assert pixels(samples[0].path).shape == (48, 48)


def test_test_crops_come_from_columns_that_training_never_sees(
    tmp_path, monkeypatch
):
    # A photograph whose pixels tell where they are: 100 left, 201 right.
    def photograph(name, mode):
        columns = np.arange(512) >= 320
        return np.tile(np.where(columns, 201, 100), (512, 1)).astype("uint8")

    monkeypatch.setattr(textures, "read_photograph", photograph)
    few = {**SMALL, "num_test_defective": 0}
    folder = write_texture_folder(tmp_path / "demo", **few)
    for sample in folder.train:
        assert abs(int(pixels(sample.path).max()) - 100) <= 5
    for sample in folder.test:
        assert abs(int(pixels(sample.path).min()) - 201) <= 9


def test_the_arguments_decide(tmp_path):
    write_texture_folder(tmp_path / "a", **SMALL)
    write_texture_folder(tmp_path / "b", **SMALL)
    write_texture_folder(tmp_path / "c", **SMALL, seed=1)
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    other = contents(tmp_path / "c")
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)
    write_texture_folder(tmp_path / "d", **{**SMALL, "num_train": 6})
    more = contents(tmp_path / "d")
    first.pop("dataset.json")
    assert all(more[name] == first[name] for name in first)


# === Files ===


def test_own_folder_is_replaced(tmp_path):
    write_texture_folder(tmp_path / "demo", **SMALL)
    write_texture_folder(tmp_path / "demo", "gravel", **SMALL, seed=1)
    (tmp_path / "new").mkdir()
    write_texture_folder(tmp_path / "new", "gravel", **SMALL, seed=1)
    assert contents(tmp_path / "demo") == contents(tmp_path / "new")
    assert sorted(os.listdir(tmp_path)) == ["demo", "new"]
    # Unless other files are in it.
    (tmp_path / "demo/mine.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"did not write.*mine\.png"):
        write_texture_folder(tmp_path / "demo", **SMALL)
    assert (tmp_path / "demo/mine.png").exists()


def test_a_photograph_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (100, 160), "uint8")
    # Left and right tell the parts apart.
    pixels[:, :100] //= 2
    pixels[:, 100:] = 128 + pixels[:, 100:] // 2
    Image.fromarray(pixels).save(tmp_path / "wall.png")
    path = tmp_path / "wall.png"
    folder = write_texture_folder(
        tmp_path / "demo", path, **{**SMALL, "image_size": 60}
    )
    read = [np.asarray(Image.open(s.path)) for s in folder.train]
    assert max(image.max() for image in read) <= 1.04 * 127 + 1
    good = [s.path for s in folder.test if not s.label]
    assert min(np.asarray(Image.open(p)).min() for p in good) >= 0.96 * 128 - 1
    card = json.loads((tmp_path / "demo/dataset.json").read_text())
    assert card["photograph"] == "wall.png"
    assert card["test_columns"] == [100, 160]
    with pytest.raises(ValueError, match="at most 60"):
        write_texture_folder(tmp_path / "demo", path, image_size=61)


def test_a_photograph_larger_than_the_other_textures(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (520, 1400), "uint8")
    Image.fromarray(pixels).save(tmp_path / "wall.png")
    folder = write_texture_folder(
        tmp_path / "demo", tmp_path / "wall.png", 520, 1, 0, 4
    )
    defects = {sample.defect for sample in folder.test}
    assert defects == {"scratch", "stain", "hole", "foreign"}


@pytest.mark.parametrize("card", ["", "{}", "[]", '{"written_by": "me"}'])
def test_strange_folder_is_left_alone(tmp_path, card):
    path = tmp_path / "dataset.json"
    path.write_text(card)
    with pytest.raises(ValueError, match=r"did not write.*dataset\.json"):
        write_texture_folder(tmp_path, **SMALL)
    with pytest.raises(ValueError, match="There is a file in place of"):
        write_texture_folder(path, **SMALL)
    assert contents(tmp_path) == {"dataset.json": card.encode()}


@pytest.mark.parametrize("name", [".notes", ".git/config", ".git"])
def test_hidden_files_are_somebody_elses(tmp_path, name):
    root = tmp_path / "demo"
    write_texture_folder(root, **SMALL)
    hidden = root / name
    if name == ".git":
        hidden.mkdir()
    else:
        hidden.parent.mkdir(exist_ok=True)
        hidden.write_text("mine")
    with pytest.raises(ValueError, match=rf"did not write.*\{name}"):
        write_texture_folder(root, **SMALL)
    assert hidden.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texture": "wood"}, "texture='wood'"),
        ({"image_size": 193}, "image_size=193"),
        ({"num_train": 0}, "num_train=0"),
        ({"defects": ["dent"]}, "defects='dent'"),
        ({"defects": []}, r"defects=\(\)"),
        ({"root": "memory://demo"}, "memory://demo"),
    ],
)
def test_arguments_are_checked(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_texture_folder(**{"root": tmp_path / "demo", **arguments})
    assert not (tmp_path / "demo").exists()


def crop(texture="gravel", size=96, seed=0):
    rng = np.random.default_rng([9, seed])
    photograph = textures.read_photograph(f"{texture}.png", "L")
    return textures._crop(photograph, size, rng) / 255.0


def draw(defect, image=None, seed=0, other="grass"):
    image = crop() if image is None else image
    rng = np.random.default_rng(seed)
    foreign = crop(other, len(image))
    return draw_defect(image, defect, rng, foreign=foreign)


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize(("texture", "seed"), [("brick", 0), ("gravel", 1)])
def test_mask_marks_what_changed(defect, texture, seed):
    image = crop(texture, seed=seed)
    result, mask = draw(defect, image, seed)
    assert mask.dtype == bool
    assert result.shape == mask.shape == image.shape
    np.testing.assert_array_equal(result[~mask], image[~mask])
    change = np.abs(result - image)[mask]
    # Visible on the whole, and nearly everywhere inside.
    assert change.mean() >= max(0.04, 0.45 * image.std())
    assert (change > 0.0).mean() > 0.95
    assert result.min() >= 0.0
    assert result.max() <= 1.0


@pytest.mark.parametrize("defect", ["hole", "foreign"])
def test_blobs_are_one_piece_without_gaps(defect):
    for seed in range(6):
        mask = draw(defect, seed=seed)[1]
        # Two parts may touch by a corner only.
        _, pieces = ndimage.label(mask, np.ones((3, 3)))
        assert pieces == 1
        np.testing.assert_array_equal(mask, ndimage.binary_fill_holes(mask))


def test_kinds_of_defects_look_like_them():
    image = crop()

    def detail(pixels, where):
        return np.abs(ndimage.laplace(pixels))[where].mean()

    for seed in range(4):
        result, mask = draw("hole", image, seed)
        assert result[mask].mean() < 0.6 * image.mean()
        mask = draw("scratch", image, seed)[1]
        assert ndimage.distance_transform_edt(mask).max() < 5.0
        result, mask = draw("blur", image, seed)
        inner = ndimage.binary_erosion(mask, iterations=4)
        assert detail(result, inner) < 0.5 * detail(image, inner)
        result, mask = draw("foreign", image, seed)
        around = ndimage.binary_dilation(mask, iterations=4)
        assert abs(result[mask].mean() - image[around].mean()) < 0.05


@pytest.mark.parametrize(
    ("defect", "smallest", "largest"),
    [
        ("scratch", 0.001, 0.04),
        ("stain", 0.008, 0.2),
        ("hole", 0.001, 0.05),
        ("foreign", 0.005, 0.15),
        ("blur", 0.008, 0.2),
    ],
)
def test_sizes_are_realistic_and_varied(defect, smallest, largest):
    shares = [draw(defect, seed=seed)[1].mean() for seed in range(8)]
    assert smallest < min(shares)
    assert 1.2 * min(shares) < max(shares) < largest


def test_bad_arguments():
    with pytest.raises(ValueError, match="defect='dent'"):
        draw("dent")
    with pytest.raises(ValueError, match="another material"):
        draw_defect(crop(), "foreign", np.random.default_rng(0))
    # What cannot be seen.
    with pytest.raises(ValueError, match="No visible 'blur'"):
        draw("blur", np.full((64, 64), 0.5))
