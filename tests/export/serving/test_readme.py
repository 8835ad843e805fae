"""Runs the code of export/README.md, and checks what it says."""

import contextlib
import io
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
import typer.main
from PIL import Image

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.cli import app
from keras_sspcab.data import (
    decode_and_resize,
    image_dataset,
    write_texture_folder,
)
from keras_sspcab.export.serving import ServerOptions
from tests.export.serving.served import serve

ROOT = pathlib.Path(__file__).parents[3]
TEXT = (ROOT / "export" / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def run(text, folder, server=None):
    """Runs the block with a text; returns its names and lines of output."""
    (code,) = (block for block in BLOCKS if text in block)
    if server is not None:
        code = code.replace("localhost:8500", server.grpc_target)
        code = code.replace("localhost:8501", f"localhost:{server.rest_port}")
    names, output = {}, io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
    ):
        patch.chdir(folder)
        exec(compile(code, "README.md", "exec"), names)
    return names, output.getvalue().splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the README starts from, and the artifacts it writes."""
    folder = tmp_path_factory.mktemp("readme")
    images = write_texture_folder(
        folder / "bricks",
        image_size=64,
        num_train=12,
        num_test_good=2,
        num_test_defective=5,
    )
    model = AutoEncoder(filters=(8, 8, 4))
    model.calibrate(
        image_dataset(images.train, (64, 64), channels=1, batch_size=4)
    )
    model.save(folder / "model.keras")
    for name, sample in zip(
        ["photo", "other"], images.test[::-1], strict=False
    ):
        content = pathlib.Path(sample.path).read_bytes()
        (folder / f"{name}.png").write_bytes(content)
    names, output = run("export_model(model", folder)
    assert "anomaly_score" in "".join(output)
    assert names["result"].parity.passes
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with serve(folder / "served") as server:
        yield server


@pytest.fixture(scope="module")
def expected(folder):
    """The scores of both photos, by Keras."""
    files = [
        tf.io.decode_png((folder / name).read_bytes(), channels=1)
        for name in ("photo.png", "other.png")
    ]
    model = keras.models.load_model(folder / "model.keras")
    images = np.stack(files).astype("float32") / 255
    return model.predict(images, verbose=0)["anomaly_score"]


def test_artifacts(folder):
    for name in (
        "served/bricks/1/saved_model.pb",
        "served/bricks/1/parity.json",
        "bricks.onnx.parity.json",
        "bricks_int8.tflite",
    ):
        assert (folder / name).is_file()


@pytest.mark.parametrize(
    ("package", "tolerance"),
    [("import onnxruntime", 1e-3), ("Interpreter", 0.5), ("tf.saved", 1e-3)],
)
def test_runners(folder, expected, package, tolerance):
    outputs = run(package, folder)[0]["outputs"]
    assert set(outputs) == {"anomaly_score", "anomaly_map", "is_anomalous"}
    scores = np.asarray(outputs["anomaly_score"])
    np.testing.assert_allclose(scores, expected[:1], atol=tolerance)


def test_pillow_resizes_as_training_does():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (150, 117, 3)).astype("uint8")
    photo = Image.fromarray(pixels).convert("L")
    photo = photo.resize((64, 64), Image.BILINEAR)
    file = tf.io.encode_png(pixels)
    np.testing.assert_allclose(
        np.asarray(photo, "float32") / 255,
        decode_and_resize(file, (64, 64), channels=1)[..., 0],
        atol=1.6 / 255,
    )


def test_clients(folder, server, expected):
    def assert_scores(predictions):
        scores = [prediction.score for prediction in predictions]
        np.testing.assert_allclose(scores, expected[: len(scores)], atol=1e-3)

    _, output = run("wait_until_ready", folder, server)
    received = [float(line.split()[0]) for line in output[::2]]
    np.testing.assert_allclose(received, expected, atol=1e-3)
    assert output[1] == "(64, 64) 1"
    names, output = run("timeout=5", folder, server)
    assert_scores(names["predictions"][1:])
    assert output[0].startswith("INVALID_ARGUMENT False The input")
    names, _ = run("AsyncClient", folder, server)
    assert_scores([prediction for (prediction,) in names["predictions"]])
    outputs = run("urllib", folder, server)[0]["outputs"]
    assert outputs["anomaly_score"] == pytest.approx(expected[0], abs=1e-3)
    assert np.shape(outputs["anomaly_map"]) == (64, 64)


def test_commands_have_the_options_of_the_readme():
    known = {
        name: {option for item in command.params for option in item.opts}
        for name, command in typer.main.get_command(app).commands.items()
    }
    lines = re.findall(r"^ {4}keras-sspcab (.+)$", TEXT, re.MULTILINE)
    commands = [shlex.split(line) for line in lines]
    assert {command for command, *_ in commands} == {"package", "serve"}
    for command, *arguments in commands:
        options = {word for word in arguments if word.startswith("-")}
        assert options <= known[command]
    # And those that are only spoken of.
    options = set(re.findall(r"`(--[a-z-]+)", TEXT)) - {"--no-deps"}  # of pip
    assert options
    assert options <= known["export"] | known["package"] | known["serve"]


def test_limits_are_those_of_the_server():
    text = " ".join(TEXT.split())
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
            with Client(target, model="bricks") as client:
                images = np.full((3, 64, 64, 1), 0.25, "float32")
                print(len(client.predict(images)), client.protocol)
        unwanted = {"keras", "tensorflow", "tensorflow_serving"}
        print(unwanted & set(sys.modules))
        sys.modules["grpc"] = None
        try:
            Client("localhost:8500", model="bricks")
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
