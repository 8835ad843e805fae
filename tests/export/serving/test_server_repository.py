"""A repository of `keras-sspcab package` is served as it says."""

import shutil

import grpc
import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from keras_sspcab.cli import app
from keras_sspcab.export.serving.repository import Repository
from keras_sspcab.files import write_text
from tests.export.serving.models import (
    NAME,
    assert_same,
    copy_repository,
    copy_version,
    direct,
    images,
)
from tests.export.serving.served import (
    calling,
    code_of,
    http_call,
    predict_path,
    predict_request,
    serve,
    wait_until,
)


@pytest.fixture
def repository(directory, tmp_path):
    """One with versions 1 and 2."""
    return copy_repository(directory, tmp_path / "repository", versions=2)


def ask(caller, **choice):
    """Returns which version has answered."""
    request = predict_request(image=images(1))
    for name, value in choice.items():
        if name == "label":
            request.model_spec.version_label = value
        else:
            request.model_spec.version.value = value
    outputs, spec = caller.predict(request)
    assert_same(outputs, direct(image=images(1)))
    return spec.version.value


def served(caller, name=NAME):
    """Versions that are available."""
    statuses = caller.status(name).model_version_status
    return {status.version for status in statuses if status.state == 30}


def change_config(repository, change):
    """Edits `models.config` through the official message, all at once."""
    message = model_server_config_pb2.ModelServerConfig()
    path = repository.directory / "models.config"
    text_format.Parse(path.read_text(), message)
    change(message.model_config_list.config)
    write_text(str(path), text_format.MessageToString(message))


def test_rollback_while_running(repository):
    """By the command, there and back."""
    from typer.testing import CliRunner

    def roll_back(*to):
        arguments = ["package", f"--to={repository.directory}", "--rollback"]
        result = CliRunner().invoke(app, [*arguments, *to])
        assert result.exit_code == 0, result.output

    with serve(repository.directory) as server, calling(server) as caller:
        assert ask(caller) == 2
        roll_back()
        wait_until(lambda: served(caller) == {1})
        assert ask(caller) == 1
        # A new version waits.
        copy_version(repository, 3)
        with pytest.raises(TimeoutError):
            wait_until(lambda: served(caller) != {1}, seconds=0.5)
        with pytest.raises(grpc.RpcError) as error:
            ask(caller, version=3)
        assert code_of(error) == "NOT_FOUND"
        roll_back("latest")
        wait_until(lambda: served(caller) == {3})
        assert ask(caller) == 3


def test_policies(repository):
    copy_version(repository, 3)
    with serve(repository.directory) as server, calling(server) as caller:
        assert served(caller) == {3}
        for policy, wanted in (
            ("latest { num_versions: 2 }", {2, 3}),
            ("all {}", {1, 2, 3}),
            ("specific { versions: 1 versions: 3 }", {1, 3}),
        ):

            def change(configs, policy=policy):
                configs[0].model_version_policy.Clear()
                text_format.Parse(policy, configs[0].model_version_policy)

            change_config(repository, change)
            wait_until(lambda wanted=wanted: served(caller) == wanted)
            for version in wanted:
                assert ask(caller, version=version) == version


def test_labels(repository):
    def change(configs):
        configs[0].model_version_policy.all.SetInParent()
        configs[0].version_labels["stable"] = 1
        configs[0].version_labels["canary"] = 2

    def move(configs):
        configs[0].version_labels["stable"] = 2
        # Of no use yet: the label stays where it was.
        configs[0].version_labels["canary"] = 9

    change_config(repository, change)
    with serve(repository.directory) as server, calling(server) as caller:
        assert ask(caller, label="stable") == 1
        assert ask(caller, label="canary") == 2
        body = {"instances": images(1).tolist()}
        path = predict_path(where="/labels/stable")
        assert http_call(server, path, body)[0] == 200
        change_config(repository, move)
        wait_until(lambda: ask(caller, label="stable") == 2)
        assert ask(caller, label="canary") == 2
        with pytest.raises(grpc.RpcError) as error:
            ask(caller, label="nightly")
        assert code_of(error) == "INVALID_ARGUMENT"


def test_models_come_and_go_by_the_configuration(repository):
    models = repository.directory / "models"
    shutil.copytree(models / NAME, models / "nuts")

    def add(configs):
        entry = configs.add(name="nuts", model_platform="tensorflow")
        entry.base_path = "/repository/models/nuts"

    def remove(configs):
        del configs[0]

    with serve(repository.directory) as server, calling(server) as caller:
        assert http_call(server, "/v1/models/nuts")[0] == 404
        change_config(repository, add)
        wait_until(lambda: http_call(server, "/v1/models/nuts")[0] == 200)
        wait_until(lambda: served(caller, "nuts") == {2})
        change_config(repository, remove)
        wait_until(lambda: not served(caller))
        with pytest.raises(grpc.RpcError) as error:
            ask(caller)
        assert code_of(error) == "NOT_FOUND"
        assert http_call(server, "/readyz")[0] == 200
        outputs, _ = caller.predict(predict_request("nuts", image=images(1)))
        assert_same(outputs, direct(image=images(1)))


def test_a_broken_configuration_changes_nothing(repository, caplog):
    with serve(repository.directory) as server, calling(server) as caller:
        (repository.directory / "models.config").write_text("model {")
        wait_until(lambda: "is no ModelServerConfig" in caplog.text)
        assert ask(caller) == 2


def _differs(repository, version):
    """Changes one byte of the weights."""
    (file,) = repository.path(NAME, version).glob("variables/variables.data-*")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return "variables.data-00000-of-00001 differs"


def _has_none(repository, version):
    (repository.path(NAME, version) / "MANIFEST.sha256").unlink()
    return "MANIFEST.sha256 is missing"


@pytest.mark.parametrize("spoil", [_differs, _has_none])
def test_a_tampered_version_is_refused(repository, spoil, caplog):
    """Nobody is served by it, nor loses the version there is."""
    staged = Repository(repository.directory.parent / "staged")
    shutil.copytree(repository.directory, staged.directory)
    message = spoil(staged, 2)
    with serve(repository.directory) as server, calling(server) as caller:
        staged.path(NAME, 2).rename(repository.path(NAME, 3))
        wait_until(lambda: "cannot be loaded" in caplog.text)
        assert f"Version 3 of {NAME} cannot be loaded" in caplog.text
        (status,) = caller.status(version=3).model_version_status
        assert status.state == 50
        assert "is not what was packaged" in status.status.error_message
        assert message in status.status.error_message
        assert served(caller) == {2}
        assert ask(caller) == 2
        path = f"/v1/models/{NAME}/versions/3"
        (status,) = http_call(server, path)[1]["model_version_status"]
        assert message in status["status"]["error_message"]
    # Nor does a server start that has nothing else to serve.
    with pytest.raises(ValueError, match=f"Cannot load {NAME} version 3"):
        serve(repository.directory).start()
