import numpy as np
import pytest
from PIL import Image

from keras_sspcab.compare.classes import DataClass, find_classes
from keras_sspcab.compare.kinds import KINDS

IMAGE = KINDS["image"]


@pytest.fixture
def write(tmp_path):
    """Writes images of a class: normal, normal to test with, and defective."""

    def write(name, train=3, normal=1, defective=2):
        for folder, count in {
            "train/good": train,
            "test/good": normal,
            "test/hole": defective,
        }.items():
            for i in range(count):
                path = tmp_path / name / folder / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.zeros((4, 4), "uint8")).save(path)
        return tmp_path

    return write


def test_folder_of_a_class_is_one_class(write):
    root = write("screw")
    (found,), left_out = find_classes(str(root / "screw"), IMAGE)
    assert found == DataClass("screw", str(root / "screw"), 3, 1, 2)
    assert left_out == ()


def test_folder_of_classes_holds_them_by_name(write):
    write("b")
    root = write("a")
    (root / "papers").mkdir()
    (root / ".hidden" / "train").mkdir(parents=True)
    (root / "readme.txt").write_text("x")
    found, left_out = find_classes(str(root), IMAGE)
    assert [data_class.name for data_class in found] == ["a", "b"]
    assert found[1].path == str(root / "b")
    assert left_out == ("papers",)


def test_incomplete_classes_are_all_named(write):
    write("a")
    write("b", normal=0)
    write("c", normal=0, defective=0)
    write("d", train=1)
    root = write("e", train=0)
    with pytest.raises(ValueError) as caught:
        find_classes(str(root), IMAGE)
    first, *lines = str(caught.value).splitlines()
    assert first == "4 of 5 classes cannot be used:"
    assert lines[0].startswith("b: there are 0 normal test images (test/good)")
    assert "0 normal test images (test/good) and 0 defective" in lines[1]
    assert lines[2].startswith("d: there is one image in train/good")
    assert lines[3].startswith("e: There is no folder train/good")


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is no class, and holds none"):
        find_classes(str(tmp_path), IMAGE)
    with pytest.raises(ValueError, match="There is no folder of images"):
        find_classes(str(tmp_path / "missing"), IMAGE)
