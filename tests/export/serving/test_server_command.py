"""`keras-sspcab serve`, in a process of its own."""

import contextlib
import re
import signal
import subprocess
import sys
import threading
import types
import urllib.parse

import numpy as np
import pytest
from typer.testing import CliRunner

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.cli import app
from keras_sspcab.export.serving.servable import servable_folder
from keras_sspcab.runs import RunFolder
from keras_sspcab.runs.parsing import load_config
from tests.cli.program import command
from tests.export.serving.models import (
    NAME,
    add_version,
    assert_same,
    direct,
    encoded,
    images,
    model_path,
    run_directly,
    tiny_detector,
    two_input_model,
)
from tests.export.serving.served import (
    TOKEN,
    calling,
    http_call,
    predict_path,
    predict_request,
)

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="needs signals of POSIX"
)
PORTS = ("--grpc-port=0", "--rest-port=0")


class Program:
    """A running server: what it prints, and where it listens."""

    def __init__(self, process):
        self.process = process
        self.output = ""

    def read_until(self, text):
        """Waits for a line; returns it."""
        for line in self.process.stdout:
            self.output += line
            if text in line:
                return line
        raise AssertionError(self.output)

    def addresses(self):
        """The ports, as the program prints them."""
        url = re.search(r"https?://\S+", self.read_until("REST"))[0]
        target = self.read_until("gRPC").split()[-1]
        return types.SimpleNamespace(
            rest_port=urllib.parse.urlsplit(url).port, grpc_target=target
        )

    def stop(self, number=signal.SIGTERM):
        """Returns the exit code and all that was printed."""
        self.process.send_signal(number)
        self.output += self.process.stdout.read()
        return self.process.wait(timeout=30), self.output


@contextlib.contextmanager
def serving(*arguments):
    with subprocess.Popen(
        command("serve", *PORTS, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    ) as process:
        # A test that waits for a line that never comes ends, too.
        killer = threading.Timer(300, process.kill)
        killer.start()
        try:
            yield Program(process)
        finally:
            killer.cancel()
            process.kill()


def test_a_model_is_served_until_the_signal(tmp_path):
    folder = tmp_path / NAME
    add_version(folder, 1)
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    token.chmod(0o600)
    headers = {"authorization": f"Bearer {TOKEN}"}
    with serving(folder, f"--token-file={token}") as program:
        server = program.addresses()
        with calling(server) as caller:
            request = predict_request(image=images(2))
            options = {"metadata": list(headers.items())}
            outputs, _ = caller.predict(request, **options)
            assert_same(outputs, direct(image=images(2)))
            # It tells of versions that come and go.
            add_version(folder, 2, version=2)
            program.read_until(f"Serving version 2 of {NAME}")
            _, spec = caller.predict(request, **options)
            assert spec.version.value == 2
        body = {"inputs": images(2).tolist()}
        assert http_call(server, predict_path(), body)[0] == 401
        assert http_call(server, predict_path(), body, headers)[0] == 200
        code, output = program.stop()
    assert code == 0, output
    assert TOKEN not in output
    # Of TensorFlow's own messages there is none.
    assert [line.split()[0] for line in output.splitlines()] == [
        *("Serving", "Page", "gRPC:", "Stop"),
        *("Serving", "Ended", "Stopping;"),
    ]
    with pytest.raises(ConnectionRefusedError):
        http_call(server, "/healthz")


def test_a_keras_file_is_served_until_ctrl_c(tmp_path):
    tiny_detector().save(tmp_path / "screws.keras")
    with serving(tmp_path / "screws.keras") as program:
        assert "Exported" in program.read_until("Exported")
        server = program.addresses()
        body = {"inputs": images(2).tolist()}
        path = predict_path(tiny_detector().name)
        status, answer = http_call(server, path, body)
        assert status == 200
        assert_same(answer["outputs"], direct(image=images(2)))
        code, output = program.stop(signal.SIGINT)
    assert code == 0, output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "There is no model at"),
        (["missing.keras"], "missing.keras"),
        (["{model}", "--version=7"], "no such version"),
        (["{model}", "--label=stable"], "LABEL=VERSION"),
        (["{model}", "--host=192.0.2.1"], "cannot listen at 192.0.2.1"),
        (["{model}", "--tls-key=missing.pem"], "TLS needs both"),
        (["{model}", "--max-request=0"], "value for '--max-request'"),
        (["{model}", "--max-pixels=0"], "value for '--max-pixels'"),
        (["{model}", "--batch-timeout=-3"], "value for '--batch-timeout'"),
    ],
)
def test_errors_of_the_user(monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    arguments = [text.format(model=model_path()) for text in arguments]
    result = CliRunner().invoke(app, ["serve", *PORTS, *arguments])
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_models_without_a_run_are_exported(tmp_path, monkeypatch):
    """Clips, and several inputs as those of hosts of objects."""
    model = two_input_model()
    monkeypatch.setattr("keras_sspcab.runs.load_detector", lambda _: model)
    (tmp_path / "objects.keras").touch()
    with servable_folder(tmp_path / "objects.keras") as folder:
        outputs = run_directly(
            folder / "1",
            appearance=np.zeros((5, 8, 8, 1), "float32"),
            motion=np.zeros((5, 8, 8, 2), "float32"),
        )
        assert outputs["anomaly_score"].shape == (5,)
    assert not folder.exists()


def test_the_size_of_open_models_is_that_of_the_run(tmp_path):
    model = AutoEncoder((None, None, 1), filters=(8, 8, 4))
    model.compile()
    model.calibrate(images(4))
    run = RunFolder(str(tmp_path / "run"))
    settings = {"data.path": str(tmp_path), "data.image_size": 24}
    run.start(load_config(overrides=settings))
    model.save(run.file("model.keras"))
    with servable_folder(run.path) as folder:
        outputs = run_directly(
            folder / "1", "serving_bytes", image_bytes=[encoded(images(1)[0])]
        )
        assert outputs["anomaly_map"].shape == (1, 24, 24)
    with (
        pytest.raises(ValueError, match="Serve its run folder"),
        servable_folder(run.file("model.keras")),
    ):
        pass
