"""The examples of `examples/runtimes` answer what Keras answers."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_sspcab.data import decode_and_resize
from keras_sspcab.export import Client, export_model
from keras_sspcab.preprocessing import Preprocessing
from tests.browser import check_page
from tests.export.conftest import FORMATS, SIZE
from tests.export.serving.models import IMAGES, NAME, encoded
from tests.export.serving.served import serve
from tests.web import serving

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "runtimes"
CACHE = ROOT / ".build" / "runtimes"

CLOSE = {"rtol": 1e-3, "atol": 2e-3}


@pytest.fixture(scope="module")
def photos(detector, textures, tmp_path_factory):
    """Files as PNG and PGM: two of the model's size, others of none."""
    folder = tmp_path_factory.mktemp("photos")
    scores = detector.predict(textures["test"], verbose=0)["anomaly_score"]
    ends = textures["test"][np.argsort(scores)[[0, -1]]]
    low, high = np.round(255 * ends[..., 0]).astype("uint8")
    larger = high.repeat(3, 0).repeat(2, 1)[:90, :45]
    images = [low, high, larger, low[:20, :25]]
    for number, image in enumerate(images):
        for suffix in ("png", "pgm"):
            Image.fromarray(image).save(folder / f"{number}.{suffix}")
    return sorted(folder.glob("*.png"))


@pytest.fixture(scope="module")
def expected(detector, photos):
    """What Keras answers, by photo."""
    images = [
        decode_and_resize(tf.io.read_file(str(path)), (SIZE, SIZE), 1)
        for path in photos
    ]
    outputs = detector.predict(np.stack(images), verbose=0)
    assert len({*outputs["is_anomalous"]}) == 2
    return [
        {name: value[i] for name, value in outputs.items()}
        for i in range(len(photos))
    ]


def numbers_of(line):
    """Score, flag and largest value of the map in a printed line."""
    match = re.search(
        r"score (\S+), anomalous: (yes|no), highest.*: (\S+)$", line
    )
    return float(match[1]), match[2] == "yes", float(match[3])


@pytest.mark.parametrize("to", ["onnx", "tflite", "openvino"])
def test_python(to, detector, onnx_file, photos, expected, tmp_path):
    path = onnx_file.path
    if to != "onnx":
        path = export_model(
            detector, tmp_path / FORMATS[to], to, check=False
        ).path
    for name in ("tensorflow", "keras"):
        text = f"raise ImportError('{name} must not be needed')"
        (tmp_path / f"{name}.py").write_text(text)
    result = subprocess.run(
        [sys.executable, EXAMPLES / "python/detect.py", path, *photos],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    for line, outputs in zip(lines, expected, strict=True):
        score, flag, highest = numbers_of(line)
        np.testing.assert_allclose(score, outputs["anomaly_score"], **CLOSE)
        np.testing.assert_allclose(
            highest, outputs["anomaly_map"].max(), **CLOSE
        )
        assert flag == outputs["is_anomalous"]


def test_python_refuses_files_of_16_bits(tmp_path):
    example = runpy.run_path(str(EXAMPLES / "python/detect.py"))
    photo = tmp_path / "photo.png"
    Image.fromarray(np.full((8, 8), 4000, "uint16")).save(photo)
    for channels in (1, 3):
        with pytest.raises(SystemExit, match="has 16 bits or more a value"):
            example["read_image"](str(photo), (8, 8, channels), "stretch")
    report = {"preprocessing": Preprocessing(white_level=4095).to_dict()}
    path = tmp_path / "m.onnx"
    Path(f"{path}.parity.json").write_text(json.dumps(report), "utf-8")
    with pytest.raises(SystemExit, match="takes images of 16 bits"):
        example["read_fit"](str(path))


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize("size", [(10, 23), (31, 16), (8, 8)])
def test_python_fits_images_as_training_does(fit, size, tmp_path):
    """`detect.py` pads and crops, also for models that take any size."""
    example = runpy.run_path(str(EXAMPLES / "python/detect.py"))
    photo = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), "uint8")
    Image.fromarray(pixels).save(photo)
    how = Preprocessing(fit=fit)
    expected = decode_and_resize(
        tf.io.read_file(str(photo)), (16, 16), 3, preprocessing=how
    )
    given = example["read_image"](str(photo), (16, 16, 3), fit)
    np.testing.assert_allclose(given[0], expected, atol=1e-5)
    for shape in (("height", "width", 3), (None, None, 3), (-1, -1, 3)):
        given = example["read_image"](str(photo), shape, fit)
        np.testing.assert_allclose(given[0] * 255, pixels, atol=1e-4)
    report = {"preprocessing": how.to_dict()}
    (tmp_path / "a.onnx.parity.json").write_text(json.dumps(report))
    assert example["read_fit"](str(tmp_path / "a.onnx")) == fit
    assert example["read_fit"](str(tmp_path / "b.onnx")) == "stretch"


def test_serving_client(tmp_path, monkeypatch, capsys):
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(IMAGES[0]))
    example = EXAMPLES / "python/ask_server.py"
    with serve() as server:
        address = f"localhost:{server.grpc_port}"
        arguments = [example.name, address, NAME, str(path)]
        monkeypatch.setattr(sys, "argv", arguments)
        exec(compile(example.read_text(), example, "exec"), {})
        with Client(address, model=NAME) as client:
            (prediction,) = client.predict([path])
    score, flag, _ = numbers_of(capsys.readouterr().out.strip())
    assert score == pytest.approx(prediction.score, abs=1e-5)
    assert flag == prediction.is_anomalous


# === C++ ===


def headers():
    """The folder of ONNX Runtime's headers; Debian has them as a package."""
    places = (
        os.environ.get("ONNXRUNTIME_INCLUDE", ""),
        *("/usr/include/onnxruntime", "/usr/local/include/onnxruntime"),
        CACHE / "usr/include/onnxruntime",
    )
    for place in places:
        if (Path(place) / "onnxruntime_cxx_api.h").is_file():
            return place
    pytest.skip(
        "needs ONNX Runtime's headers: apt-get install libonnxruntime-dev, "
        "or ONNXRUNTIME_INCLUDE"
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The example in C++, compiled."""
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    include = headers()
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = Path(onnxruntime.__file__).parent / "capi"
    library = next(folder.glob("libonnxruntime.so.*"), None)
    if library is None:
        pytest.skip(f"needs ONNX Runtime as a library, which {folder} lacks")
    # As in a release.
    root = tmp_path_factory.mktemp("onnxruntime")
    (root / "include").symlink_to(include)
    (root / "lib").mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (root / "lib" / name).symlink_to(library)
    build = root / "build"
    for command in (
        [
            *("cmake", "-S", EXAMPLES / "cpp", "-B", build),
            f"-DONNXRUNTIME_ROOT={root}",
            "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror",
        ],
        ["cmake", "--build", build],
    ):
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
    return build / "detect"


def test_cpp(program, onnx_file, photos, expected):
    for path, outputs in zip(photos, expected, strict=True):
        result = subprocess.run(
            [program, onnx_file.path, path.with_suffix(".pgm")],
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        score, flag, *rows = result.stdout.splitlines()
        np.testing.assert_allclose(
            float(score.removeprefix("score ")),
            outputs["anomaly_score"],
            **CLOSE,
        )
        assert flag == f"anomalous {int(outputs['is_anomalous'])}"
        anomaly_map = [np.fromstring(row, sep=" ") for row in rows]
        np.testing.assert_allclose(anomaly_map, outputs["anomaly_map"], **CLOSE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P6\n# a comment\n2 1\n255\n123456", "takes images of 1 channels"),
        (b"P5 2 2 255\n12", "ends too early"),
        (b"P5 2 2 65535\n12345678", "no PPM or PGM file with 8 bits"),
        (b"\x89PNG", "no PPM or PGM file with 8 bits"),
    ],
)
def test_cpp_says_what_is_wrong(program, onnx_file, tmp_path, content, message):
    (tmp_path / "photo").write_bytes(content)
    result = subprocess.run(
        [program, onnx_file.path, tmp_path / "photo"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert message in result.stderr


# === JavaScript in a browser ===


@pytest.fixture(scope="module")
def onnxruntime_web():
    """The files of onnxruntime-web that the page needs, fetched once."""
    folder = CACHE / "node_modules" / "onnxruntime-web" / "dist"
    if not (folder / "ort.wasm.min.js").is_file():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("needs npm, to fetch onnxruntime-web")
        CACHE.mkdir(parents=True, exist_ok=True)
        result = subprocess.run(
            [
                *(npm, "install", "--ignore-scripts", "--no-audit"),
                *("--no-fund", "--prefix", CACHE, "onnxruntime-web@1"),
            ],
            capture_output=True,
            text=True,
        )
        if result.returncode:
            pytest.skip(f"npm cannot fetch onnxruntime-web: {result.stderr}")
    names = (
        "ort.wasm.min.js",
        "ort-wasm-simd-threaded.mjs",
        "ort-wasm-simd-threaded.wasm",
    )
    return [folder / name for name in names]


@pytest.fixture
def address(onnxruntime_web, onnx_file, tmp_path):
    """The page, beside a model, as any server of files gives it."""
    shutil.copytree(EXAMPLES / "browser", tmp_path, dirs_exist_ok=True)
    shutil.copy(onnx_file.path, tmp_path / "model.onnx")
    for path in onnxruntime_web:
        (tmp_path / path.name).symlink_to(path)
    with serving(tmp_path) as address:
        yield f"{address}/index.html"


def test_browser(browser, address, photos, expected, tmp_path):
    from selenium.webdriver.support.wait import WebDriverWait

    def answer_to(path):
        element = browser.find_element("id", "answer")
        wait = WebDriverWait(browser, 60)
        wait.until(lambda _: element.text != "Loading the model…")
        assert "cannot" not in element.text
        browser.find_element("id", "file").send_keys(str(path))
        wait.until(lambda _: element.get_attribute("class"))
        return element.text

    for _ in check_page(browser, address):
        assert answer_to(photos[0]).startswith("Score ")
    for path, outputs in zip(photos, expected, strict=True):
        browser.refresh()
        flag = "anomalous" if outputs["is_anomalous"] else "normal"
        assert answer_to(path).endswith(f": {flag}")
        result = browser.execute_script(
            "return {...window.result, map: [...window.result.map]}"
        )
        np.testing.assert_allclose(
            result["score"], outputs["anomaly_score"], **CLOSE
        )
        np.testing.assert_allclose(
            np.reshape(result["map"], (result["height"], result["width"])),
            outputs["anomaly_map"],
            **CLOSE,
        )
        assert result["isAnomalous"] == outputs["is_anomalous"]
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    browser.refresh()
    assert answer_to(broken).startswith("broken.png cannot be looked at: ")
