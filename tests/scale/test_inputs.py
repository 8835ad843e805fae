import os

import pytest

from keras_sspcab.scale.plan import list_inputs

TREE = (
    "a.png",
    "b.jpg",
    "notes.txt",
    "x[1].png",
    "x1.png",
    "deep/c.png",
    "deep/er/d.PNG",
    "deep/.hidden.png",
)


@pytest.fixture
def tree(tmp_path):
    for name in TREE:
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "tree"


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*.png"], ["a.png", "x1.png", "x[1].png"]),
        (["?.*"], ["a.png", "b.jpg"]),
        (["**/*.png"], ["a.png", "deep/c.png", "x1.png", "x[1].png"]),
        (["deep"], ["deep/c.png", "deep/er/d.PNG"]),
        (["deep/**"], ["deep/c.png", "deep/er/d.PNG"]),
        (["x[1].png"], ["x[1].png"]),
        (["x[0-9].png"], ["x1.png"]),
        (["*.txt"], ["notes.txt"]),
        # Several ways to the same file.
        (
            ["deep/c.png", "deep", "deep/er/../c.png"],
            ["deep/c.png", "deep/er/d.PNG"],
        ),
    ],
)
def test_patterns_folders_and_files(tree, patterns, expected):
    found = list_inputs([f"{tree}/{pattern}" for pattern in patterns])
    assert found == [f"{tree}/{name}" for name in expected]


def test_relative_paths_become_absolute(tree, monkeypatch):
    monkeypatch.chdir(tree / "deep")
    assert list_inputs(["*.png", "../a.png"]) == [
        f"{tree}/a.png",
        f"{tree}/deep/c.png",
    ]


@pytest.mark.parametrize("name", ["*.bmp", "missing.png", "missing/*.png"])
def test_what_matches_nothing_is_an_error(tree, name):
    with pytest.raises(ValueError, match="no file that matches"):
        list_inputs([tree / "a.png", tree / name])


def test_brackets_are_explained(tree):
    with pytest.raises(ValueError, match="Brackets are part of the pat") as e:
        list_inputs([f"{tree}/x[2].png"])
    assert f"write '{tree}/x[[]2].png'" in str(e.value)
    assert list_inputs([f"{tree}/x[[]1].png"]) == [f"{tree}/x[1].png"]


def test_known_files_that_have_vanished_stay(tree):
    known = [f"{tree}/a.png", f"{tree}/x1.png", f"{tree}/gone.png"]
    assert list_inputs([tree / "[ax][.1]*"], known) == sorted(known)
    assert list_inputs([tree / "gone.png"], known) == known[2:]
    # With new ones it is another list.
    assert list_inputs([tree / "b.jpg"], known) == [f"{tree}/b.jpg"]


def test_names_that_are_no_text_are_refused(tree):
    name = os.fsencode(tree) + b"/\xff.png"
    try:
        os.close(os.open(name, os.O_CREAT))
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    with pytest.raises(ValueError, match=r"must be UTF-8.*udcff\.png"):
        list_inputs([f"{tree}/*.png"])


def test_urls(tree):
    with pytest.raises(ValueError, match=r"No file system is known for zz://"):
        list_inputs(["zz://bucket/*.png"])
