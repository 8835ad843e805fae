"""The commands of the README and the manifests, as far as they can be run."""

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import threading

import numpy as np
import pytest
import tensorflow as tf
import typer
from typer.testing import CliRunner

from keras_sspcab.cli import package as package_command
from keras_sspcab.data import write_texture_folder
from keras_sspcab.export.serving import Repository
from keras_sspcab.runs import RunFolder
from keras_sspcab.runs.parsing import load_config
from tests.export.serving.deployment_files import (
    MANIFESTS,
    blocks,
    compose,
    pods,
)
from tests.export.serving.models import (
    NAME,
    SIZE,
    copy_repository,
    run_directly,
    tiny_detector,
)
from tests.export.serving.served import serve


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run, without the training."""
    folder = tmp_path_factory.mktemp("run")
    images = write_texture_folder(
        folder / "brick",
        image_size=SIZE,
        num_train=4,
        num_test_good=2,
        num_test_defective=3,
    )
    run = RunFolder(str(folder / "run"))
    settings = {
        "data.path": str(images.root),
        "data.image_size": SIZE,
        "data.channels": 1,
        "data.patch_size": 0,
        "data.validation_fraction": 0.5,
    }
    run.start(load_config(overrides=settings))
    tiny_detector().save(run.file("model.keras"))
    return run.path


@pytest.fixture
def invoke():
    """Runs `keras-sspcab package`; checks its exit code."""
    app = typer.Typer()
    package_command.register(app)
    app.callback()(lambda: None)

    def invoke(*arguments, code=0):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return invoke


def test_requests_of_the_readme(directory, tmp_path):
    """Against the embedded server, at another port."""
    repository = copy_repository(directory, tmp_path / "repository")
    # Longer than an argument of a command may be.
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 1), "uint8")
    photo = tf.io.encode_png(noise, compression=0).numpy()
    assert len(photo) > 1 << 17
    (repository.directory / "photo.png").write_bytes(photo)
    outputs = []
    with serve(repository.directory) as server:
        for block in blocks(directory):
            if "curl" not in block:
                continue
            script = block.replace("8501", f"{server.rest_port}")
            done = subprocess.run(
                ["/bin/bash", "-c", script],
                cwd=repository.directory,
                capture_output=True,
                timeout=60,
            )
            assert done.returncode == 0, (block, done.stderr)
            outputs.append(done.stdout.decode())
    status, prediction, metrics = outputs
    assert '"AVAILABLE"' in status
    assert f'"name":"{NAME}"' in status
    (row,) = json.loads(prediction)["predictions"]
    expected = run_directly(
        repository.path(NAME, 1), "serving_bytes", image_bytes=[photo]
    )
    assert row["anomaly_score"] == pytest.approx(
        float(expected["anomaly_score"][0]), abs=1e-3
    )
    assert "# TYPE" in metrics


def test_version_commands_of_the_readme(
    directory, run, tmp_path, invoke, monkeypatch
):
    repository = copy_repository(directory, tmp_path / "repository", versions=2)
    monkeypatch.chdir(repository.directory)
    served = []
    for line in "".join(blocks(directory)).splitlines():
        if line.startswith("kubectl"):
            assert (directory / line.split()[3]).is_file()
        if line.startswith("keras-sspcab package"):
            line = line.replace("RUN", run).replace("VERSION", "1")
            result = invoke(*shlex.split(line)[1:])
            served.append(repository.served(NAME))
            assert str(served[-1][0]) in result.output
    assert served == [(3,), (2,), (1,), (3,)]
    report = json.loads((repository.path(NAME, 3) / "parity.json").read_text())
    # The test images of the run.
    assert report["parity"]["num_images"] == 5


def test_packaging_a_file(tmp_path, run, invoke):
    model = os.path.join(run, "model.keras")
    to = ["--to", tmp_path / "repository", "--name", NAME]
    result = invoke("package", model, *to, code=2)
    assert "Give a folder with --images" in result.stderr
    images = os.path.join(os.path.dirname(run), "brick", "train", "good")
    options = ["--images", images, "--precision", "bfloat16", "--jit-compile"]
    options += ["--max-batch-size", 2, "--gpus", 0, "--version", 7]
    result = invoke("package", model, *to, *options)
    path = Repository(tmp_path / "repository").path(NAME, 7)
    assert f"Wrote {path}" in result.stdout
    assert "kubernetes.yaml" in result.stdout
    report = json.loads((path / "parity.json").read_text())
    assert report["precision"] == "bfloat16"
    assert report["jit_compile"] is True
    for pod in pods(tmp_path / "repository").values():
        assert pod["containers"][0]["image"] == "tensorflow/serving:latest"


def test_packaging_while_rolled_back_warns(directory, run, tmp_path, invoke):
    repository = copy_repository(directory, tmp_path / "repository", versions=3)
    to = ["--to", repository.directory]
    invoke("package", *to, "--rollback")
    result = invoke("package", run, *to, "--name", NAME, "--keep", 1)
    assert "rolled back and serves 2" in result.stderr
    assert "--rollback latest" in result.stderr
    assert "Removed version 1" in result.stdout
    # In front of another option, too.
    result = invoke("package", "--rollback", *to, code=2)
    assert "no version of screws before 2" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give either a model to package, or --rollback"),
        (["model.keras", "--rollback"], "Give either a model"),
        (["--rollback", "soon"], "--rollback takes a version"),
        (["--rollback", "9"], "no version 9"),
    ],
)
def test_wrong_arguments(directory, tmp_path, invoke, arguments, message):
    repository = copy_repository(directory, tmp_path / "repository")
    result = invoke("package", *arguments, "--to", repository.directory, code=2)
    assert message in result.stderr
    assert repository.served() == (1,)


def verify_scripts(directory):
    assert compose(directory)["serving"]["depends_on"] == {
        "verify": {"condition": "service_completed_successfully"}
    }
    service = compose(directory)["verify"]
    assert service["entrypoint"] == ["/bin/bash", "-c"]
    # Compose takes two of them for one.
    (script,) = service["command"]
    scripts = {"docker-compose.yml": script.replace("$$", "$")}
    for file, pod in pods(directory).items():
        (container,) = pod["initContainers"]
        assert container["command"] == ["/bin/bash", "-c"]
        (scripts[file],) = container["args"]
    (scripts["README.md"],) = (b for b in blocks(directory) if "sha256" in b)
    return scripts


@pytest.mark.parametrize("file", [*MANIFESTS, "README.md"])
def test_containers_check_the_files_before_they_serve(
    directory, tmp_path, file
):
    repository = copy_repository(directory, tmp_path / "a b", versions=2)
    folder = shlex.quote(str(tmp_path / "a b"))
    script = verify_scripts(directory)[file].replace("/repository", folder)

    def check():
        return subprocess.run(
            ["/bin/bash", "-c", script], cwd=tmp_path / "a b"
        ).returncode

    assert check() == 0
    graph = repository.path(NAME, 1) / "saved_model.pb"
    before = graph.read_bytes()
    graph.write_bytes(before + b"\0")
    assert check() == 1
    graph.write_bytes(before)
    (repository.path(NAME, 2) / "MANIFEST.sha256").unlink()
    assert check() == 1
    shutil.rmtree(repository.directory / "models" / NAME)
    assert check() == 1


@pytest.mark.parametrize(
    ("status", "code"), [("200 OK", 0), ("404 Not Found", 1)]
)
def test_the_health_check_of_compose(directory, status, code):
    test = compose(directory)["serving"]["healthcheck"]["test"]
    assert test[:3] == ["CMD", "/bin/bash", "-c"]
    assert "$" not in test[3]
    with answering(status) as (port, requests):
        script = test[3].replace("8501", str(port))
        done = subprocess.run(["/bin/bash", "-c", script], timeout=20)
    assert done.returncode == code
    assert requests == [f"GET /v1/models/{NAME}/metadata HTTP/1.0"]


@contextlib.contextmanager
def answering(status):
    """A server that answers one request with a status."""
    requests = []
    with socket.create_server(("localhost", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                requests.append(connection.recv(1000).decode().splitlines()[0])
                connection.sendall(f"HTTP/1.0 {status}\r\n\r\n".encode())

        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1], requests
        thread.join(20)
