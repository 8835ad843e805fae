import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from keras_sspcab.export import ExportResult, export_saved_model
from keras_sspcab.export.serving import package_model, packaging
from keras_sspcab.export.serving import repository as repository_module
from keras_sspcab.export.serving.model_config import ModelsConfig
from keras_sspcab.export.serving.repository import Repository
from keras_sspcab.locks import folder_lock
from tests.export.serving.models import (
    IMAGES,
    NAME,
    copy_repository,
    copy_version,
    encoded,
    images,
    package,
    tiny_detector,
)


@pytest.fixture
def repository(directory, tmp_path):
    """One with three versions, to play with."""
    return copy_repository(directory, tmp_path / "repository", versions=3)


def parse_config(directory):
    message = model_server_config_pb2.ModelServerConfig()
    text = (directory / "models.config").read_text()
    return text_format.Parse(text, message).model_config_list.config


def test_layout(directory, packaged_result):
    result = packaged_result
    assert result.path == directory / "models" / NAME / "1"
    assert (result.version, result.served, result.removed) == (1, (1,), [])
    assert {
        "MANIFEST.sha256",
        "assets.extra",
        "parity.json",
        "saved_model.pb",
        "variables",
    } <= set(os.listdir(result.path))
    assert set(os.listdir(directory)) == {
        *result.written,
        "models",
        "models.config",
    }
    assert len(result.written) == 7
    assert result.parity.passes
    assert result.parity.num_images == len(IMAGES)


def test_models_config_is_read_by_the_official_message(directory):
    (config,) = parse_config(directory)
    assert config.name == NAME
    assert config.base_path == f"/repository/models/{NAME}"
    assert config.model_platform == "tensorflow"
    assert not config.HasField("model_version_policy")


def test_versions_count_up(repository):
    for taken in (0, 1, 3, -1):
        with pytest.raises(ValueError, match="version"):
            package(repository.directory, version=taken)
    with pytest.raises(ValueError, match="keep"):
        package(repository.directory, keep=0)
    result = package(repository.directory, version=20, keep=2)
    assert (result.version, result.removed, result.written) == (20, [1, 2], [])
    assert repository.versions(NAME) == [3, 20]


@pytest.mark.parametrize("name", ["", "a b", "../x", "12", "-x"])
def test_names_must_be_fit_for_paths(tmp_path, name):
    with pytest.raises(ValueError, match="name of a model"):
        package(tmp_path, name=name)
    assert os.listdir(tmp_path) == []


def test_the_oldest_versions_go_but_for_a_pinned_one(repository):
    repository.rollback(version=1)
    assert repository.prune(NAME, 1) == [2]
    assert repository.prune(NAME, 1) == []
    assert repository.versions(NAME) == [1, 3]
    repository.unpin()
    assert repository.prune(NAME, 1) == [1]
    assert not list(repository.directory.glob(".*"))


def test_a_version_is_removed_in_one_step(repository, monkeypatch):
    def check(path, **_):
        # No server looks here.
        assert ".staging" in os.fspath(path)
        assert repository.versions(NAME) == [2, 3]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", check)
        with pytest.raises(KeyboardInterrupt):
            repository.prune(NAME, 2)
    assert list(repository.directory.glob(".staging.*"))
    repository.unpin()  # whatever writes next tidies up
    assert not list(repository.directory.glob(".*"))


def test_rollback_to_a_version_and_forward(repository):
    assert repository.served() == (3,)
    assert repository.rollback() == 2
    assert repository.rollback() == 1
    with pytest.raises(ValueError, match="no version of screws before 1"):
        repository.rollback()
    with pytest.raises(ValueError, match=r"no version 7.*There are: 1, 2, 3"):
        repository.rollback(version=7)
    assert repository.served() == (1,)
    assert repository.unpin() == 3
    policy = parse_config(repository.directory)[0].model_version_policy
    assert policy.latest.num_versions == 1
    copy_version(repository, 4)
    assert repository.served() == (4,)


@pytest.mark.parametrize("broken", [2, 3])
def test_rollback_checks_the_files_first(repository, broken):
    path = repository.path(NAME, broken) / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:-1])
    before = (repository.directory / "models.config").read_bytes()
    with pytest.raises(ValueError, match=r"saved_model\.pb differs"):
        repository.rollback() if broken == 2 else repository.unpin()
    assert (repository.directory / "models.config").read_bytes() == before


def test_several_models(repository):
    package(repository.directory, name="nuts")
    assert repository.names == ["nuts", NAME]
    with pytest.raises(ValueError, match="several models.*nuts, screws"):
        repository.rollback()
    with pytest.raises(ValueError, match="no model 'bolts'"):
        repository.rollback("bolts")
    assert repository.rollback(NAME) == 2
    assert repository.served("nuts") == (1,)


def test_changes_of_models_config_are_kept(repository):
    file = repository.directory / "models.config"
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(file.read_text(), config)
    (model,) = config.model_config_list.config
    model.base_path = "gs://bucket/screws"
    model.version_labels["stable"] = 2
    model.model_version_policy.specific.versions.extend([1, 2])
    file.write_text(text_format.MessageToString(config))
    package(repository.directory, name="nuts")
    screws, nuts = parse_config(repository.directory)
    assert screws == model
    assert nuts.name == "nuts"
    assert repository.prune(NAME, 1) == []


def test_a_broken_models_config_is_named(repository):
    (repository.directory / "models.config").write_text("model_config {")
    with pytest.raises(ValueError, match=r"models\.config is no ModelServer"):
        repository.rollback()


def test_an_empty_directory_has_no_models(tmp_path):
    with pytest.raises(ValueError, match="There is no model in"):
        Repository(tmp_path / "nowhere").rollback()
    assert os.listdir(tmp_path) == []


def test_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    with pytest.raises(ImportError, match="tensorflow-serving-api"):
        package(tmp_path / "repository")
    assert os.listdir(tmp_path) == []


def test_a_folder_of_images_for_a_model_in_memory(repository, tmp_path):
    for number, image in enumerate(images(3)):
        (tmp_path / f"{number}.png").write_bytes(encoded(image))
    result = package_model(
        tiny_detector(), repository.directory, tmp_path, NAME
    )
    report = json.loads((result.path / "parity.json").read_text())
    assert report["parity"]["num_images"] == 3


@pytest.mark.parametrize("given", [None, 3, "nowhere"])
def test_images_that_are_none_are_refused(tmp_path, given):
    folder = tmp_path / "repository"
    with pytest.raises(ValueError, match="`images` must be|nowhere"):
        package_model(tiny_detector(), folder, given)
    with pytest.raises(ValueError, match="`images` must be"):
        export_saved_model(tiny_detector(), tmp_path / "a", images=given or 3)


# What is left of a packaging that ends in the middle.


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
    models = repository.directory / "models" / NAME
    assert sorted(os.listdir(models)) == ["1", "2", "3"]
    assert not list(repository.directory.glob(".*"))
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
    assert repository.versions(NAME) == [1, 2, 3]
    assert not list(repository.directory.glob(".*"))


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
    staged = list(directory.glob(f".staging.*/{NAME}/4/saved_model.pb"))
    assert len(staged) == 1  # it was killed in the middle
    assert repository.versions(NAME) == [1, 2, 3]
    # Its lock has gone with it, and what it left goes with the next.
    assert package(directory).version == 4
    assert not list(directory.glob(".*"))


def test_one_at_a_time(repository):
    with (
        folder_lock(repository.directory),
        pytest.raises(ValueError, match=f"in use by process {os.getpid()}"),
    ):
        repository.rollback()
    assert repository.rollback() == 2
