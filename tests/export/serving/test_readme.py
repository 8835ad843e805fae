"""Checks what the documentation says of serving."""

import pathlib
import re

import typer.main

from keras_sspcab.cli import app
from keras_sspcab.export.serving import ServerOptions
from tests.scripts import run_script

ROOT = pathlib.Path(__file__).parents[3]
SERVING = (ROOT / "docs/how_to/serve.md").read_text("utf-8")


def test_options_that_are_spoken_of_exist():
    known = {
        option
        for name in ("package", "serve")
        for item in typer.main.get_command(app).commands[name].params
        for option in item.opts
    }
    options = set(re.findall(r"`(--[a-z-]+)", SERVING)) - {"--no-deps"}  # pip's
    assert options
    assert options <= known


def test_limits_are_those_of_the_server():
    text = " ".join(SERVING.split())
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
    code = """
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
    """
    output = run_script(code, server.grpc_target, server.rest_url, cwd=ROOT)
    by_grpc, by_rest, imported, message = output.splitlines()
    assert (by_grpc, by_rest) == ("3 grpc", "3 rest")
    assert imported == "set()"
    assert 'pip install "keras-sspcab[transport]"' in message
