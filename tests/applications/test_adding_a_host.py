"""The hosts of docs/how_to/add_a_host.md, as another package brings them."""

import importlib
import re
import sys
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_sspcab.hosts import (
    available_applications,
    get_application,
    register_application,
    registry,
)

if keras.config.backend() != "tensorflow":
    pytest.skip("commands need TensorFlow", allow_module_level=True)

from keras_sspcab.cli import app
from tests.data.video_writing import write_frames

DOCUMENT = Path(__file__).parents[2] / "docs/how_to/add_a_host.md"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A package with the code of the document, installed as pip leaves it."""
    text = DOCUMENT.read_text()
    root = tmp_path_factory.mktemp("site")
    (root / "my_hosts").mkdir()
    (root / "my_hosts/__init__.py").touch()
    names = []
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
        (name,) = re.findall(r'@register_application\("(\w+)"\)', code)
        (root / f"my_hosts/{name}.py").write_text(code)
        names.append(name)
    info = root / "my_hosts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: my-hosts\nVersion: 1.0\n")
    (points,) = re.findall(
        rf'\[project\.entry-points\."({registry.GROUP})"\]\n(.*?)```',
        text,
        re.S,
    )
    points = f"[{points[0]}]\n{points[1].replace(chr(34), '')}"
    (info / "entry_points.txt").write_text(points)
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    yield names
    sys.path.remove(str(root))
    for name in names:
        registry.hosts.pop(name, None)
        sys.modules.pop(f"my_hosts.{name}", None)
    sys.modules.pop("my_hosts", None)


def invoke(*arguments):
    result = CliRunner().invoke(
        app, list(map(str, arguments)), catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    from keras_sspcab.data import write_texture_folder

    folder = tmp_path_factory.mktemp("data") / "images"
    sizes = {"num_train": 8, "num_test_good": 3, "num_test_defective": 3}
    write_texture_folder(folder, image_size=32, **sizes)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("data") / "videos"
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (10, 16, 16, 1), "uint8")
    for name in ("train/a", "train/b", "test/c"):
        write_frames(folder / name, frames)
    (folder / "ground_truth").mkdir()
    np.save(folder / "ground_truth/c.npy", np.arange(10) > 6)
    return folder


@pytest.mark.parametrize(
    ("name", "data", "settings", "metric"),
    [
        ("inpainting", "images", {"data.image_size": 32}, "image_auroc"),
        (
            "next_frame",
            "videos",
            {"data.image_size": 16, "data.channels": 1},
            "micro_auc",
        ),
    ],
)
def test_every_command_works(
    package, name, data, settings, metric, request, tmp_path
):
    assert name in package
    run = tmp_path / "run"
    options = [f"--set={key}={value}" for key, value in settings.items()]
    folder = request.getfixturevalue(data)
    invoke(
        *("train", "--model", name, "--data", folder, "--run", run),
        *("--epochs", 1, *options),
    )
    invoke("evaluate", run)
    assert f'"{metric}"' in (run / "metrics.json").read_text()
    invoke("report", run)
    assert name in (run / "report.html").read_text()
    invoke("export", run, "--to", "onnx")
    loaded = keras.models.load_model(run / "model.keras")
    assert type(loaded) is get_application(name)
    assert loaded.get_config()["sspcab"] == "penultimate"
    assert loaded.calibration.is_calibrated


def test_the_command_for_choosing_lists_them(package):
    assert set(package) == {"inpainting", "next_frame"}
    assert set(package) <= set(available_applications())
    # Those of this package come first, with the default at their head.
    listed = invoke("models")
    assert listed.index("multiscale_padim") < listed.index("inpainting")


def test_settings_and_arguments(package):
    host = get_application("inpainting")
    model = host((32, 32, 1), None, width=4)
    # Its own arguments; all hosts have further entries.
    own = {
        "input_shape": (32, 32, 1),
        "sspcab": None,
        "width": 4,
        "sspcab_options": None,
        "name": "inpainting",
        "calibration": model.calibration.to_dict(),
        "dtype": "float32",
    }
    assert own.items() <= model.get_config().items()

    class Wide(host):
        default_settings: ClassVar = {
            "model": {"width": 32},
            "training": {"epochs": 2},
        }

    class Wider(Wide):
        default_settings: ClassVar = {"model": {"width": 64}}

    assert host.default_settings == {}
    assert Wider.default_settings == {
        "model": {"width": 64},
        "training": {"epochs": 2},
    }


def test_a_name_is_not_taken_twice(package):
    get_application("inpainting")
    with pytest.raises(ValueError, match="already: my_hosts.inpainting"):
        register_application("inpainting")(type("Other", (), {}))


def test_a_class_of_the_same_name_is_another():
    host = get_application("padim")
    copy = type("PaDiM", (host,), {"__module__": "__main__"})
    with pytest.raises(ValueError, match=r"already: .*\.PaDiM. Choose another"):
        register_application("padim")(copy)
    # Modules may be reloaded.
    again = type("PaDiM", (host,), {"__module__": host.__module__})
    register_application("padim")(again)
    register_application("padim")(host)
