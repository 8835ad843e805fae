import dataclasses

import pytest

from keras_sspcab.data import ImageFolder, ImageSample


def folder(count=20, root="/data/part"):
    train = tuple(
        ImageSample(f"{root}/train/good/{i:03d}.png") for i in range(count)
    )
    return ImageFolder(root, "mvtec", train)


def names(samples, root="/data/part"):
    return [sample.path.removeprefix(root) for sample in samples]


@pytest.mark.parametrize(
    ("count", "fraction", "held"),
    [(20, 0.1, 2), (20, 0.25, 5), (3, 0.01, 1), (2, 0.99, 1), (5, 0.99, 4)],
)
def test_with_validation_holds_out_the_fraction(count, fraction, held):
    before = folder(count)
    after = before.with_validation(fraction)
    assert len(after.validation) == held
    assert len(after.train) == count - held
    both = after.train + after.validation
    assert sorted(both, key=lambda s: s.path) == list(before.train)
    assert names(after.train) == sorted(names(after.train))
    assert before.validation == ()
    with pytest.raises(ValueError, match="validation split already"):
        after.with_validation()


def test_with_validation_depends_on_seed_and_relative_path_only():
    first = folder().with_validation(0.3, seed=1)
    again = folder().with_validation(0.3, seed=1)
    other = folder().with_validation(0.3, seed=2)
    moved = folder(root="/mnt/x").with_validation(0.3, seed=1)
    assert first.validation == again.validation
    assert first.validation != other.validation
    assert names(first.validation) == names(moved.validation, "/mnt/x")


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, "half", float("nan")])
def test_with_validation_refuses_a_fraction(fraction):
    with pytest.raises(ValueError, match=f"fraction={fraction!r}"):
        folder().with_validation(fraction)
    with pytest.raises(ValueError, match="at least two"):
        folder(1).with_validation()


def test_labels_are_0_or_1():
    with pytest.raises(ValueError, match=r"label=2 for 'x\.png'"):
        ImageSample("x.png", label=2)


def test_summary_counts_and_names_what_is_missing():
    test = (
        ImageSample("/d/test/good/0.png"),
        ImageSample("/d/test/crack/0.png", 1, "crack", "/d/m.png"),
        ImageSample("/d/test/crack/1.png", 1, "crack"),
    )
    text = dataclasses.replace(folder(20), test=test, notes=("a note",))
    lines = text.with_validation(0.1).summary().splitlines()
    table = [line.split() for line in lines]
    assert lines[0] == "/data/part (layout: mvtec)"
    assert ["train", "good", "18", "-"] in table
    assert ["validation", "good", "2", "-"] in table
    assert ["test", "good", "1", "-"] in table
    assert ["test", "crack", "2", "1"] in table
    assert ["total", "23", "1"] in table
    assert "without a mask: 1 (/d/test/crack/1.png)" in "\n".join(lines)
    assert "  a note" in lines
    assert "2 of 20 normal images held out of train" in lines[-1]
