"""Runs what export/README.md says about serving."""

import contextlib
import io
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import typer.main

from keras_sspcab.cli import app
from tests.export.serving.conformance import check
from tests.export.serving.models import NAME, direct, encoded, images

ROOT = pathlib.Path(__file__).parents[3]
README = ROOT / "export" / "README.md"
BLOCKS = [
    block
    for block in re.findall(
        r"```python\n(.*?)```", README.read_text(), re.DOTALL
    )
    if "Client(" in block
]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    contents = [encoded(image) for image in images(2)]
    for name, content in zip(["photo.png", "other.png"], contents, strict=True):
        (tmp_path / name).write_bytes(content)
    return contents


def run(text, server):
    (code,) = (block for block in BLOCKS if text in block)
    code = code.replace("localhost:8500", server.grpc_target)
    code = code.replace('"bricks"', f'"{NAME}"')
    code = code.replace("http://localhost:8501", server.rest_url)
    # The model of the tests is smaller.
    code = code.replace("(64, 64)", "(32, 32)")
    names, output = {}, io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, str(README), "exec"), names)
    return names, output.getvalue().splitlines()


def test_grpc(server, files):
    _, output = run("wait_until_ready", server)
    scores = direct("serving_bytes", image_bytes=files)["anomaly_score"]
    received = [float(line.split()[0]) for line in output[::2]]
    np.testing.assert_allclose(received, scores, rtol=1e-3)
    assert output[1] == "(32, 32) 1"


def test_rest(server, files):
    names, output = run("http://", server)
    pixels = names["pixels"][None, ..., None] / np.float32(255)
    check(names["predictions"][:1], direct(image=pixels))
    expected = direct("serving_bytes", image_bytes=files[:1])
    check(names["predictions"][1:], expected)
    assert output[0].startswith("INVALID_ARGUMENT False The input")


def test_async(server, files):
    names, _ = run("AsyncClient", server)
    predictions = [prediction for (prediction,) in names["predictions"]]
    check(predictions, direct("serving_bytes", image_bytes=files))


def test_commands_have_the_options_of_the_readme():
    known = {
        name: {option for item in command.params for option in item.opts}
        for name, command in typer.main.get_command(app).commands.items()
    }
    text = README.read_text()
    lines = re.findall(r"^ {4}keras-sspcab (.+)$", text, re.MULTILINE)
    commands = [shlex.split(line) for line in lines]
    assert {command for command, *_ in commands} == {"package", "serve"}
    for command, *arguments in commands:
        options = {word for word in arguments if word.startswith("-")}
        assert options <= known[command]
    # And those that are only spoken of.
    options = set(re.findall(r"`(--[a-z-]+)", text)) - {"--no-deps"}  # of pip
    assert options
    assert options <= known["export"] | known["package"] | known["serve"]


def test_limits_are_those_of_the_server():
    from keras_sspcab.export.serving import ServerOptions

    text = " ".join(README.read_text().split())
    options = ServerOptions()
    assert options.host in text
    assert f"a request ({options.max_request_bytes >> 20} MiB)" in text
    assert f"rows of a request ({options.max_rows})" in text
    assert f"{options.max_pending_bytes >> 20} MiB for requests" in text
    assert f"{options.max_work_bytes >> 30} GiB (`--max-memory`)" in text
    assert f"({options.max_image_pixels // 10**6} megapixels)" in text
    assert f"requests that wait ({options.max_queue})" in text
    assert f"a request ({options.read_timeout:.0f})" in text
    assert f"answer it ({options.timeout:.0f})" in text


def test_safe_mode_stays_on():
    for folder in ("export", "keras_sspcab", "applications"):
        for path in (ROOT / folder).rglob("*.py"):
            assert "safe_mode=False" not in path.read_text(), path


def test_the_client_imports_neither_keras_nor_tensorflow(server):
    code = textwrap.dedent("""
        import sys

        import numpy as np
        from keras_sspcab.export import Client

        for target in sys.argv[1:]:
            with Client(target, model="screws") as client:
                images = np.full((3, 32, 32, 1), 0.25, "float32")
                print(len(client.predict(images)), client.protocol)
        unwanted = {"keras", "tensorflow", "tensorflow_serving"}
        print(unwanted & set(sys.modules))
        sys.modules["grpc"] = None
        try:
            Client("localhost:8500", model="screws")
        except ImportError as error:
            print(error)
    """)
    result = subprocess.run(
        [sys.executable, "-c", code, server.grpc_target, server.rest_url],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    by_grpc, by_rest, imported, message = result.stdout.strip().splitlines()
    assert (by_grpc, by_rest) == ("3 grpc", "3 rest")
    assert imported == "set()"
    assert 'pip install "keras-sspcab[transport]"' in message
