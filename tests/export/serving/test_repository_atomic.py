"""What is left of a packaging that ends in the middle."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from keras_sspcab.export import ExportResult
from keras_sspcab.export.serving import packaging
from keras_sspcab.export.serving import repository as repository_module
from keras_sspcab.export.serving.model_config import ModelsConfig
from keras_sspcab.export.serving.repository import Repository, write_lock
from tests.export.serving.models import (
    NAME,
    copy_repository,
    package,
    tiny_detector,
)


@pytest.fixture
def repository(directory, tmp_path):
    return copy_repository(directory, tmp_path / "repository")


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("module", "stage"),
    [
        (packaging, "export_saved_model"),
        (packaging, "write_warmup"),
        (packaging, "write_deployment"),
        (repository_module, "verify_version"),
        (repository_module, "_move_durably"),
        (os, "rename"),
    ],
)
def test_nothing_is_left_of_an_interruption(
    repository, monkeypatch, module, stage
):
    before = (repository.directory / "models.config").read_bytes()
    with monkeypatch.context() as patch:
        # A copy takes less time, and renames nothing itself.
        patch.setattr(packaging, "export_saved_model", _copying(repository))
        patch.setattr(module, stage, interrupt)
        with pytest.raises(KeyboardInterrupt):
            package(repository.directory)
    assert os.listdir(repository.directory / "models" / NAME) == ["1"]
    assert not (repository.directory / ".staging").exists()
    assert (repository.directory / "models.config").read_bytes() == before


def _copying(repository):
    """Takes the place of the export: a copy of version 1."""

    def export(_, directory, version, *args, **options):
        path = directory / str(version)
        shutil.copytree(repository.path(NAME, 1), path)
        return ExportResult(path, None)

    return export


def test_an_artifact_that_differs_is_not_published(repository):
    with pytest.raises(ValueError, match="differs from the model"):
        package(repository.directory, precision="float16", tolerance=1e-12)
    assert repository.versions(NAME) == [1]
    assert not (repository.directory / ".staging").exists()


def test_the_version_is_complete_when_it_appears(repository, monkeypatch):
    seen = []
    rename = os.rename

    def watch(source, target):
        if os.path.dirname(target).endswith(NAME) and ".staging" not in str(
            target
        ):
            seen.append(sorted(os.listdir(source)))
            assert repository.versions(NAME) == [1]
        rename(source, target)

    monkeypatch.setattr(packaging, "export_saved_model", _copying(repository))
    monkeypatch.setattr(os, "rename", watch)
    package(repository.directory)
    assert seen == [sorted(os.listdir(repository.path(NAME, 1)))]


def test_killed_before_the_configuration_is_written(tmp_path, monkeypatch):
    directory = tmp_path / "repository"
    with monkeypatch.context() as patch:
        patch.setattr(ModelsConfig, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            package(directory)
    repository = Repository(directory)
    # The version is whole, and the next command makes up for the rest.
    assert repository.versions(NAME) == [1]
    assert not (directory / "models.config").exists()
    assert repository.unpin() == 1
    assert repository.served() == (1,)
    assert ModelsConfig(directory).names == [NAME]


def test_killed(repository, tmp_path):
    tiny_detector().save(tmp_path / "model.keras")
    script = textwrap.dedent("""
        import os, signal, sys
        import numpy as np
        import keras_sspcab.applications
        from keras_sspcab.export.serving import packaging

        def kill(path):
            os.kill(os.getpid(), signal.SIGKILL)

        packaging.write_manifest = kill
        images = np.zeros((1, 32, 32, 1), "float32")
        packaging.package_model(sys.argv[1], sys.argv[2], images, "screws")
    """)
    directory = repository.directory
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "model.keras", directory],
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    staged = list(directory.glob(f".staging/*/{NAME}/2/saved_model.pb"))
    assert len(staged) == 1  # it was killed in the middle
    assert repository.versions(NAME) == [1]
    # Its lock has gone with it, and what it left goes with the next.
    assert package(directory).version == 2
    assert not (directory / ".staging").exists()


def test_one_at_a_time(repository):
    with (
        write_lock(repository.directory),
        pytest.raises(ValueError, match=f"in use by process {os.getpid()}"),
    ):
        repository.rollback()
    with pytest.raises(ValueError, match="no version of screws before"):
        repository.rollback()
