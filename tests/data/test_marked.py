import hashlib
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from keras_sspcab.data import MarkedImages, scan_image_folder
from keras_sspcab.data.marked import _plain


@pytest.fixture
def photos(tmp_path):
    """Three different images in three formats."""
    paths = []
    for index, name in enumerate(("a.png", "b.JPG", "c.bmp")):
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (50 * index, 9, 9)).save(path)
        paths.append(path)
    return paths


def lines(marked):
    text = (marked.path / "marks.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_copies_are_laid_out_as_data(tmp_path, photos):
    marked = MarkedImages(tmp_path / "marked")
    first = marked.add(photos[0], "false_alarm", answer={"score": 3.5})
    second = marked.add(photos[1].read_bytes(), "missed", "line 4/b.JPG")
    digest = hashlib.sha256(photos[0].read_bytes()).hexdigest()
    assert first == marked.path / "train/good" / f"a-{digest[:8]}.png"
    assert first.read_bytes() == photos[0].read_bytes()
    assert second.name.startswith("line_4_b-")
    assert second.suffix == ".jpg"
    assert photos[0].exists()
    folder = scan_image_folder(str(marked.path))
    assert [s.path for s in folder.train] == [str(first)]
    assert [(s.path, s.defect) for s in folder.test] == [
        (str(second), "missed")
    ]
    one, two = lines(marked)
    assert (one["mark"], one["score"], one["sha256"]) == (
        "false_alarm",
        3.5,
        digest,
    )
    assert (two["mark"], two["image"]) == ("missed", second.name)


def test_answers_are_those_of_models(tmp_path, photos):
    marked = MarkedImages(tmp_path / "marked")
    answer = {"score": np.float32(3.5), "second": float("nan"), "text": "x"}
    marked.add(photos[0], "missed", answer=answer)
    (line,) = lines(marked)
    assert (line["score"], line["second"], line["text"]) == (3.5, None, "x")
    with pytest.raises(ValueError, match="`answer` argument must hold"):
        marked.add(photos[1], "missed", answer={"map": np.zeros(3)})
    # Neither a copy nor a line.
    assert len(marked.missed) == len(lines(marked)) == 1


def test_an_image_is_kept_once_under_its_last_mark(tmp_path, photos):
    marked = MarkedImages(tmp_path / "marked")
    first = marked.add(photos[0], "false_alarm")
    assert marked.add(photos[0], "false_alarm", "other.png").read_bytes()
    assert len(marked.false_alarms) == 1
    marked.add(photos[0], "missed")
    assert marked.false_alarms == []
    assert len(marked.missed) == 1
    assert not first.exists()
    assert marked.remove(photos[0].read_bytes())
    assert not marked.remove(photos[0].read_bytes())
    assert marked.missed == []
    assert [line["mark"] for line in lines(marked)] == [
        *("false_alarm", "false_alarm", "missed", "none"),
    ]


def test_what_is_no_image_is_refused_and_leaves_nothing(tmp_path, photos):
    marked = MarkedImages(tmp_path / "marked")
    with pytest.raises(ValueError, match=r"the image x\.png: not an image"):
        marked.add(b"text, which is none", "missed", "x.png")
    broken = photos[0].read_bytes()[:-20]
    with pytest.raises(ValueError, match=r"the image y\.png: broken"):
        marked.add(broken, "missed", "y.png")
    with pytest.raises(ValueError, match="false_alarm, missed. Received"):
        marked.add(b"", "right")
    assert not marked.path.exists()


def test_the_folder_is_bounded(tmp_path, photos, monkeypatch):
    monkeypatch.setattr("keras_sspcab.data.marked._MOST", 2)
    marked = MarkedImages(tmp_path / "marked")
    marked.add(photos[0], "false_alarm")
    marked.add(photos[1], "missed")
    with pytest.raises(ValueError, match="holds 2 images"):
        marked.add(photos[2], "missed")
    marked.add(photos[0], "missed")  # It was there.


@given(st.text())
@example("0" * 79 + ":0")  # cut behind what is no letter
def test_names_stay_inside_the_folder(name):
    plain = _plain(name)
    assert 0 < len(plain) <= 80
    assert not {"/", "\\", "\0", ":"} & set(plain)
    assert not plain.startswith(".")
    assert _plain(plain) == plain
