import numpy as np
import pytest
from PIL import Image

from keras_sspcab.compare.classes import DataClass, find_classes
from keras_sspcab.compare.kinds import KINDS
from keras_sspcab.data.video import reading

VIDEO = KINDS["video"]


def write_frames(folder, values):
    """Writes an image a frame, each of one value."""
    folder.mkdir(parents=True)
    for number, value in enumerate(values):
        frame = np.full((4, 6), value, "uint8")
        Image.fromarray(frame).save(folder / f"{number:03d}.png")


@pytest.fixture
def write(tmp_path):
    """Writes a data set in the form of ShanghaiTech or of UCSD."""

    def write(name, train=2, labels=([0, 1, 1], [0, 0]), layout="frames"):
        root = tmp_path / name
        for i in range(train):
            folder = {
                "frames": f"training/frames/{i:02d}",
                "ucsd": f"Train/Train{i:03d}",
            }[layout]
            write_frames(root / folder, [7, 8])
        for i, values in enumerate(labels):
            folder, masks = {
                "frames": (f"testing/frames/{i:02d}", None),
                "ucsd": (f"Test/Test{i:03d}", f"Test/Test{i:03d}_gt"),
            }[layout]
            write_frames(root / folder, range(len(values or [0])))
            if values is None:
                continue
            if masks:
                write_frames(root / masks, 255 * np.asarray(values))
            else:
                path = root / "testing" / "test_frame_mask" / f"{i:02d}.npy"
                path.parent.mkdir(exist_ok=True)
                np.save(path, np.asarray(values))
        return tmp_path

    return write


def test_folder_of_a_data_set_is_one(write):
    root = write("ped2") / "ped2"
    (found,), left_out = find_classes(str(root), VIDEO)
    assert found == DataClass("ped2", str(root), 2, 3, 2)
    assert left_out == ()


def test_data_sets_of_several_layouts_lie_side_by_side(write):
    write("UCSDped2", layout="ucsd", labels=([1, 1], [0, 1, 0, 0]))
    root = write("ShanghaiTech", train=3)
    (root / "papers").mkdir()
    (root / "readme.txt").write_text("x")
    found, left_out = find_classes(str(root), VIDEO)
    assert found == (
        DataClass("ShanghaiTech", str(root / "ShanghaiTech"), 3, 3, 2),
        DataClass("UCSDped2", str(root / "UCSDped2"), 2, 3, 3),
    )
    assert left_out == ("papers",)


def test_videos_without_ground_truth_do_not_count(write):
    root = write("a", labels=([0, 1], None)) / "a"
    (found,), _ = find_classes(str(root), VIDEO)
    assert (found.num_normal, found.num_abnormal) == (1, 1)


def test_frames_are_counted_without_decoding_them(write, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("A frame is decoded")

    for name in ("read_frame", "iterate_folder", "iterate_file"):
        monkeypatch.setattr(reading, name, refuse)
    (found,), _ = find_classes(str(write("a") / "a"), VIDEO)
    assert (found.num_normal, found.num_abnormal) == (3, 2)


def test_all_data_sets_that_cannot_be_used_are_named(write):
    write("a")
    write("b", labels=([0, 0], [0]))
    write("c", labels=([1, 1],))
    write("d", train=1)
    write("e", labels=(None, None))
    write("f", labels=())
    root = write("g", train=0)
    np.save(root / "a/testing/test_frame_mask/00.npy", np.ones(5))
    with pytest.raises(ValueError) as caught:
        find_classes(str(root), VIDEO)
    first, *lines = str(caught.value).splitlines()
    assert first == "7 of 7 data sets cannot be used:"
    assert "a: There must be one label a frame" in lines[0]
    assert lines[1].startswith("b: the test videos have 3 normal and 0 abnorm")
    assert lines[2].startswith("c: the test videos have 0 normal and 2 abnorm")
    assert lines[3].startswith("d: there is one training video; one to train")
    assert lines[4].startswith("e: there are 2 test videos, and none has gr")
    assert lines[5].startswith("f: there are 0 test videos, and none has gr")
    assert lines[6].startswith("g: There is no training video")


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is no data set, and holds none"):
        find_classes(str(tmp_path), VIDEO)
    with pytest.raises(ValueError, match="There is no folder of videos"):
        find_classes(str(tmp_path / "missing"), VIDEO)
