"""A tiny run that the tests of the commands share."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keras_sspcab.cli import app
from keras_sspcab.data import write_texture_folder

TRAINING = [
    "--model=autoencoder",
    "--image-size=48",
    "--channels=1",
    "--patch-size=32",
    "--epochs=2",
    "--batch-size=8",
    "--set=data.patches_per_image=2",
    "--set=model.filters=[4, 4, 2]",
    "--set=model.smoothing=3",
    "--set=data.validation_fraction=0.25",
]


@pytest.fixture(scope="session")
def invoke():
    """Runs the program in this process; checks its exit code."""

    def invoke(*arguments, code=0):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        unexpected = not isinstance(result.exception, (SystemExit, type(None)))
        if unexpected:
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """Images of a texture: 12 to train on, 4 normal and 4 with defects."""
    root = tmp_path_factory.mktemp("images") / "brick"
    write_texture_folder(
        root,
        image_size=48,
        num_train=12,
        num_test_good=4,
        num_test_defective=4,
        defects=("hole", "stain"),
    )
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory, images, invoke) -> Path:
    """A finished run; not to be changed."""
    run = tmp_path_factory.mktemp("trained") / "run"
    invoke("train", "--data", images, "--run", run, *TRAINING)
    return run


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory, trained, invoke) -> Path:
    """A run that was evaluated; not to be changed."""
    run = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(trained, run)
    invoke("evaluate", run)
    return run


@pytest.fixture
def copy(tmp_path, trained) -> Path:
    """A finished run to play with."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))
