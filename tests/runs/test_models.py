"""Models from files, whatever state these are in."""

import io
import json
import random
import zipfile

import pytest

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.runs import load_detector

WEIGHTS, CONFIG = "model.weights.h5", "config.json"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The parts of a good file, by name."""
    path = tmp_path_factory.mktemp("good") / "model.keras"
    AutoEncoder((8, 8, 1), filters=(2, 2, 2)).save(path)
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def zipped(parts):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return file.getvalue()


def without(parts, name):
    return {other: part for other, part in parts.items() if other != name}


# What a file may be instead.
DAMAGES = {
    "nothing": lambda parts: b"",
    "no weights": lambda parts: zipped(without(parts, WEIGHTS)),
    "no config": lambda parts: zipped(without(parts, CONFIG)),
    "nested": lambda parts: zipped({**parts, CONFIG: b"[" * 100_000}),
    "another model": lambda parts: zipped(
        {**parts, CONFIG: parts[CONFIG].replace(b"AutoEncoder", b"AutoDecoder")}
    ),
    "other sizes": lambda parts: zipped(
        {**parts, CONFIG: parts[CONFIG].replace(b"[2, 2, 2]", b"[3, 3, 2]")}
    ),
    "cut weights": lambda parts: zipped(
        {**parts, WEIGHTS: parts[WEIGHTS][:2000]}
    ),
    "zeros in weights": lambda parts: zipped(
        {**parts, WEIGHTS: parts[WEIGHTS][:600] + bytes(9000)}
    ),
}


def assert_refused(content, path):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path.name} cannot be loaded"):
        load_detector(str(path))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_refused_by_name(damage, parts, tmp_path):
    assert_refused(DAMAGES[damage](parts), tmp_path / "model.keras")


def test_file_that_is_cut_anywhere_is_refused(parts, tmp_path):
    content, rng = zipped(parts), random.Random(0)
    for _ in range(20):
        cut = rng.randrange(len(content))
        assert_refused(content[:cut], tmp_path / "model.keras")


def test_changed_bytes_of_weights_are_refused(parts, tmp_path):
    content, rng = zipped(parts), random.Random(0)
    first = content.index(parts[WEIGHTS])
    for _ in range(10):
        changed = bytearray(content)
        changed[first + rng.randrange(len(parts[WEIGHTS]))] ^= 1
        assert_refused(bytes(changed), tmp_path / "model.keras")


def test_settings_that_are_not_known_are_refused(parts, tmp_path):
    config = json.loads(parts[CONFIG])
    config["config"]["colour"] = "red"
    content = zipped({**parts, CONFIG: json.dumps(config).encode()})
    assert_refused(content, tmp_path / "model.keras")
