"""The commands of the README and the manifests, as far as they can be run."""

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import threading

import numpy as np
import pytest
import tensorflow as tf

from keras_sspcab.data import write_texture_folder
from keras_sspcab.export.serving import Repository
from keras_sspcab.runs import RunFolder
from keras_sspcab.runs.parsing import load_config
from tests.cli import conftest
from tests.export.serving.deployment_files import (
    blocks,
    compose,
    pods,
)
from tests.export.serving.models import (
    NAME,
    SIZE,
    copy_repository,
    copy_version,
    package,
    run_directly,
    tiny_detector,
)
from tests.export.serving.served import serve

invoke = conftest.invoke


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
        image = pod["containers"][0]["image"]
        assert re.fullmatch(r"tensorflow/serving:\d+\.\d+\.\d+", image)
    assert "stay as they are" not in result.stderr
    (tmp_path / "repository" / "kserve.yaml").unlink()
    result = invoke("package", model, *to, "--images", images, "--gpus", 1)
    told = " ".join(result.stderr.split())
    assert "docker-compose.yml, kubernetes.yaml, README.md in" in told
    assert "stay as they are: --gpus and --image count in new ones" in told


def test_packaging_while_rolled_back_warns(directory, run, tmp_path, invoke):
    repository = copy_repository(directory, tmp_path / "repository", versions=3)
    to = ["--to", repository.directory]
    invoke("package", *to, "--rollback")
    result = invoke("package", run, *to, "--name", NAME, "--keep", 1)
    assert "rolled back and serves 2" in result.stderr
    assert "--rollback latest" in result.stderr
    assert "Removed version 1" in result.stdout
    assert repository.versions(NAME) == [2, 4]
    # In front of another option, too.
    result = invoke("package", "--rollback", *to, code=2)
    assert "no version of screws before 2" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give either a model to package, or --rollback"),
        (["model.keras", "--rollback"], "Give either a model"),
        (["--rollback", "soon"], "--rollback takes a version"),
        (["--version=1", "--rollback"], "--version is for a model that is"),
        (["--keep=1", "--rollback", "1"], "--keep is for a model that is"),
        (["--rollback", "9"], "no version 9"),
    ],
)
def test_wrong_arguments(directory, tmp_path, invoke, arguments, message):
    repository = copy_repository(directory, tmp_path / "repository")
    result = invoke("package", *arguments, "--to", repository.directory, code=2)
    assert message in result.stderr
    assert repository.served() == (1,)


def test_containers_check_the_files_before_they_serve(directory):
    services = compose(directory)
    assert services["serving"]["depends_on"] == {
        "verify": {"condition": "service_completed_successfully"}
    }
    command = ["/bin/bash", "/repository/verify.sh"]
    assert services["verify"]["entrypoint"] == command
    for pod in pods(directory).values():
        (container,) = pod["initContainers"]
        assert container["command"] == command
    assert "bash verify.sh\n" in blocks(directory)


def spoil(repository, version):
    with open(repository.path(NAME, version) / "saved_model.pb", "ab") as file:
        file.write(b"\0")


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", {10}),
        ("model_version_policy { latest { num_versions: 2 } }", {9, 10}),
        ("model_version_policy { all {} }", {2, 9, 10}),
        (
            "model_version_policy { specific { versions: 9 versions: 2 } }",
            {2, 9},
        ),
        ("model_version_policy: { specific: { versions: [2, 9] } }", {2, 9}),
        (
            "model_version_policy { specific { versions: 2 } }\n"
            'version_labels { key: "all" value: 2 }  # all',
            {2},
        ),
    ],
)
def test_only_damage_to_what_is_served_stops_containers(
    directory, tmp_path, policy, served
):
    """As the server in Python, which reads the same file, chooses it."""
    repository = copy_repository(directory, tmp_path / "a b")
    for version in (2, 9, 10):
        copy_version(repository, version)
    shutil.rmtree(repository.path(NAME, 1))
    entries = [
        f'name: "{NAME}" base_path: "/repository/models/{NAME}" {policy}'
    ]
    # Another model, with a policy of its own.
    other = "latest { num_versions: 1 }" if "all" in policy else "all {}"
    shutil.copytree(
        repository.path(NAME, 2).parent,
        repository.directory / "models" / "nuts",
    )
    entries.insert(
        0,
        "name: 'nuts' base_path: '/repository/models/nuts' "
        f"model_version_policy {{ {other} }}",
    )
    text = "".join(f"config {{ {entry}\n }}\n" for entry in entries)
    config = repository.directory / "models.config"
    config.write_text(f"model_config_list {{\n{text}}}\n")
    assert set(repository.served(NAME)) == served

    def check():
        script = repository.directory / "verify.sh"
        return subprocess.run(
            ["/bin/bash", script], cwd="/", capture_output=True, text=True
        )

    assert check().returncode == 0
    for version in (2, 9, 10):
        path = repository.path(NAME, version)
        kept = shutil.copytree(path, tmp_path / "kept")
        spoil(repository, version)
        done = check()
        assert (done.returncode == 0) == (version not in served)
        assert (f"models/{NAME}/{version} is not" in done.stderr) == (
            version in served
        )
        shutil.rmtree(path)
        kept.rename(path)
    assert check().returncode == 0
    (repository.path(NAME, min(served)) / "MANIFEST.sha256").unlink()
    assert check().returncode == 1
    shutil.rmtree(repository.directory / "models" / NAME)
    assert "no version to serve" in check().stderr
    config.write_text("")
    assert "names no models" in check().stderr
    config.unlink()
    assert check().returncode == 1


def test_servers_may_read_the_files_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        package(tmp_path / "repository")
    finally:
        os.umask(before)
    paths = [tmp_path / "repository", *(tmp_path / "repository").rglob("*")]
    assert len(paths) > 15
    for path in paths:
        if path.name != ".lock":
            wanted = 0o555 if path.is_dir() else 0o444
            assert path.stat().st_mode & wanted == wanted, path


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
