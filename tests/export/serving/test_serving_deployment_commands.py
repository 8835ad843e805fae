"""The commands of the README and the manifests, as far as they can be run."""

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import threading

import pytest
import tensorflow as tf
import typer
from typer.testing import CliRunner

from keras_sspcab.cli import package as package_command
from keras_sspcab.data import write_texture_folder
from keras_sspcab.export.serving import Server, ServerOptions
from keras_sspcab.export.serving.repository import Repository
from keras_sspcab.runs import RunFolder
from keras_sspcab.runs.parsing import load_config
from tests.export.serving.deployment_files import (
    MANIFESTS,
    blocks,
    compose,
    pods,
)
from tests.export.serving.packaged import (
    IMAGES,
    NAME,
    SIZE,
    copy_repository,
    tiny_detector,
)


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
    run.create(load_config(overrides=settings))
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


# README.md


def test_its_requests(directory, tmp_path):
    """Against the local stand-in, at another port."""
    repository = copy_repository(directory, tmp_path / "repository")
    pixels = (IMAGES[0] * 255).round().astype("uint8")
    # Longer than an argument of a command may be.
    large = tf.image.resize(pixels, (1000, 1000), "nearest").numpy()
    noise = IMAGES[:1].repeat(1000, 0)[:, 0, 0, 0]
    large[:, 0, 0] = (noise * 255).astype("uint8")
    photo = tf.io.encode_png(large, compression=0).numpy()
    assert len(photo) > 1 << 17
    (repository.directory / "photo.png").write_bytes(photo)
    outputs = []
    options = ServerOptions(grpc_port=0, rest_port=0)
    with Server(repository.directory, options) as server:
        for block in blocks(directory):
            if "curl" not in block:
                continue
            done = subprocess.run(
                [
                    "/bin/bash",
                    "-c",
                    block.replace("8501", f"{server.rest_port}"),
                ],
                cwd=repository.directory,
                capture_output=True,
                timeout=60,
            )
            assert done.returncode == 0, (block, done.stderr)
            outputs.append(done.stdout.decode())
    status, prediction, metrics = outputs
    status, metadata = _documents(status)
    assert status["model_version_status"][0]["state"] == "AVAILABLE"
    assert metadata["model_spec"]["name"] == NAME
    (scores,) = json.loads(prediction)["predictions"]
    loaded = tf.saved_model.load(str(repository.path(NAME, 1)))
    expected = loaded.signatures["serving_bytes"](
        image_bytes=tf.constant([photo])
    )
    assert scores["anomaly_score"] == pytest.approx(
        float(expected["anomaly_score"][0]), abs=1e-3
    )
    assert "# TYPE" in metrics


def _documents(text):
    decoder = json.JSONDecoder()
    while text.strip():
        document, end = decoder.raw_decode(text.lstrip())
        text = text.lstrip()[end:]
        yield document


def test_its_versions(directory, run, tmp_path, invoke, monkeypatch):
    repository = copy_repository(directory, tmp_path / "repository", versions=2)
    monkeypatch.chdir(repository.directory)
    served = []
    for block in blocks(directory):
        for line in block.splitlines():
            if not line.startswith("keras-sspcab package"):
                continue
            line = line.replace("RUN", run).replace("VERSION", "1")
            result = invoke(*shlex.split(line)[1:])
            served.append(repository.served(NAME))
            assert str(served[-1][0]) in result.output
    assert served == [(3,), (2,), (1,), (3,)]
    report = json.loads((repository.path(NAME, 3) / "parity.json").read_text())
    # The test images of the run.
    assert report["parity"]["num_images"] == 5


# keras-sspcab package


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
    assert "serves version 2" in invoke("package", *to, "--rollback").stdout
    result = invoke("package", run, *to, "--name", NAME, "--keep", 1)
    assert "rolled back and serves 2" in result.stderr
    assert "--rollback latest" in result.stderr
    assert "Removed version 1" in result.stdout
    assert repository.versions(NAME) == [2, 4]
    # In front of another option, too.
    result = invoke("package", "--rollback", *to, code=2)
    assert "no version of screws before 2" in result.stderr
    result = invoke("package", "--rollback", "latest", *to)
    assert "newest version again: 4" in result.stdout


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


# What containers run


def verify_scripts(directory):
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

    def check():
        script = verify_scripts(directory)[file]
        script = script.replace(
            "/repository", shlex.quote(str(tmp_path / "a b"))
        )
        return subprocess.run(
            ["/bin/bash", "-c", script], cwd=tmp_path / "a b"
        ).returncode

    assert check() == 0
    graph = repository.path(NAME, 1) / "saved_model.pb"
    before = graph.read_bytes()
    graph.write_bytes(before + b"\0")
    assert check() == 1
    graph.write_bytes(before)
    assert check() == 0
    (repository.path(NAME, 2) / "MANIFEST.sha256").unlink()
    assert check() == 1
    shutil.rmtree(repository.directory / "models" / NAME)
    assert check() == 1


def test_compose_waits_for_the_check(directory):
    services = compose(directory)
    assert services["serving"]["depends_on"] == {
        "verify": {"condition": "service_completed_successfully"}
    }


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


def test_commands_for_kubernetes_name_files_that_exist(directory):
    lines = "\n".join(blocks(directory)).splitlines()
    files = [line.split()[3] for line in lines if line.startswith("kubectl")]
    assert len(files) == 2
    assert all((directory / file).is_file() for file in files)
