import os
import sys

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from keras_sspcab.export.serving import packaging
from keras_sspcab.export.serving.repository import Repository
from tests.export.serving.models import (
    IMAGES,
    NAME,
    copy_repository,
    copy_version,
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


def test_other_users_can_read_it(directory):
    for path in directory.rglob("*"):
        wanted = 0o005 if path.is_dir() else 0o004
        assert path.stat().st_mode & wanted == wanted, path


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
    assert not (repository.directory / ".staging").exists()


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
    assert (repository.directory / ".staging").exists()
    repository.unpin()  # whatever writes next tidies up
    assert not (repository.directory / ".staging").exists()


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


def test_new_versions_wait_while_rolled_back(repository):
    repository.rollback()
    result = package(repository.directory)
    assert (result.version, result.served) == (4, (2,))
    # Three to keep, and the one that is served.
    assert repository.versions(NAME) == [2, 3, 4]


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


def test_paths_of_models(tmp_path):
    path = tmp_path / "screws.keras"
    tiny_detector().save(path)
    result = packaging.package_model(path, tmp_path / "repository", IMAGES)
    assert result.name == tiny_detector().name
    with pytest.raises(ValueError, match="no run folder"):
        packaging.package_model(tmp_path / "run", tmp_path / "other", IMAGES)
    assert not (tmp_path / "other").exists()


def test_an_empty_directory_has_no_models(tmp_path):
    with pytest.raises(ValueError, match="There is no model in"):
        Repository(tmp_path / "nowhere").rollback()
    assert os.listdir(tmp_path) == []


def test_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    with pytest.raises(ImportError, match="tensorflow-serving-api"):
        package(tmp_path / "repository")
    assert os.listdir(tmp_path) == []
