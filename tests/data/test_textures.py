import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from keras_sspcab.data import (
    check_images,
    scan_image_folder,
    textures,
    write_texture_folder,
)

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
    folder = write_texture_folder(tmp_path / "demo", **SMALL)
    assert folder == scan_image_folder(tmp_path / "demo", layout="mvtec")
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
    write_texture_folder(tmp_path / "new", "gravel", **SMALL, seed=1)
    assert contents(tmp_path / "demo") == contents(tmp_path / "new")
    assert sorted(os.listdir(tmp_path)) == ["demo", "new"]


@pytest.mark.parametrize("card", ["", "{}", "[]", '{"written_by": "me"}'])
def test_strange_folder_is_left_alone(tmp_path, card):
    path = tmp_path / "dataset.json"
    path.write_text(card)
    with pytest.raises(ValueError, match=r"did not write.*dataset\.json"):
        write_texture_folder(tmp_path, **SMALL)
    with pytest.raises(ValueError, match="There is a file in place of"):
        write_texture_folder(path, **SMALL)
    assert contents(tmp_path) == {"dataset.json": card.encode()}


def test_own_folder_with_other_files_is_left_alone(tmp_path):
    root = tmp_path / "demo"
    write_texture_folder(root, **SMALL)
    (root / "train/good/mine.png").write_bytes(b"x")
    before = contents(root)
    with pytest.raises(ValueError, match="did not write") as error:
        write_texture_folder(root, **SMALL, seed=1)
    assert "train/good/mine.png" in str(error.value)
    assert contents(root) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texture": "wood"}, "texture='wood'"),
        ({"image_size": 193}, "image_size=193"),
        ({"image_size": 16}, "image_size=16"),
        ({"num_train": 0}, "num_train=0"),
        ({"num_test_good": -1}, "num_test_good=-1"),
        ({"num_test_defective": 1.5}, "num_test_defective=1.5"),
        ({"seed": -1}, "seed=-1"),
        ({"defects": ["dent"]}, "defects='dent'"),
        ({"defects": []}, r"defects=\(\)"),
        ({"root": "memory://demo"}, "memory://demo"),
    ],
)
def test_arguments_are_checked(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_texture_folder(**{"root": tmp_path / "demo", **arguments})
    assert not (tmp_path / "demo").exists()
