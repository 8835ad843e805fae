"""Several products, from a folder of each to one model and its exports."""

import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_sspcab.data import MarkedImages
from keras_sspcab.data.scanning import find_products, scan_image_folder
from keras_sspcab.export import load_runner, load_scorer
from keras_sspcab.export.serving.server.errors import ServingError
from keras_sspcab.export.serving.server.json_tensors import JsonRequest
from keras_sspcab.export.serving.server.versions import LoadedVersion
from keras_sspcab.files import read_json
from keras_sspcab.hosts import ProductModel
from keras_sspcab.pictures.heat import HeatScale
from keras_sspcab.progress import Progress
from keras_sspcab.runs import (
    ConfigError,
    Run,
    RunFolder,
    load_detector,
    prediction,
    products,
)
from tests.runs.listening import Listener
from tests.runs.test_run import expecting

pytestmark = [
    pytest.mark.filterwarnings("ignore:The threshold is"),
    pytest.mark.filterwarnings("ignore:Image statistics alone"),
    pytest.mark.filterwarnings("ignore:.*have no mask"),
]

SIDE = 32
LEVELS = {"bolt": 200, "nut": 60}


def save_product(root, level):
    """Noise about a gray level; defective parts have a hole."""
    rng = np.random.default_rng(level)

    def save(path, hole=False):
        pixels = level + rng.normal(0, 5, (SIDE, SIDE, 3))
        if hole:
            pixels[8:20, 8:20] = 255 - level
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(path)

    for number in range(8):
        save(root / f"train/good/{number}.png")
    for number in range(3):
        save(root / f"test/good/{number}.png")
        save(root / f"test/hole/{number}.png", hole=True)


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "lines"
    for name, level in LEVELS.items():
        save_product(root / name, level)
    return root


def create(path, lines, **settings):
    return Run.create(
        path,
        data=lines,
        model="patchcore",
        settings={
            "data.layout": "products",
            "data.image_size": SIDE,
            "model.weights": "none",
            "model.memory_size": 32,
            **settings,
        },
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory, lines):
    run = create(tmp_path_factory.mktemp("runs") / "run", lines)
    listener = Listener()
    run.train(progress=listener)
    assert "100 % were taken for the product" in " ".join(listener.texts)
    return run


def test_products_are_found_only_where_they_are_meant(lines, tmp_path):
    assert list(find_products(lines)) == ["bolt", "nut"]
    assert len(scan_image_folder(lines, "products").train) == 16
    with pytest.raises(ValueError, match=r'several.*layout="products"'):
        scan_image_folder(lines)
    with pytest.raises(ValueError, match="For a single product"):
        find_products(lines / "nut")
    shutil.copytree(lines, tmp_path / "lines")
    Image.new("L", (8, 8)).save(tmp_path / "lines/0.png")
    with pytest.raises(ValueError, match="0.png"):
        find_products(tmp_path / "lines")


def test_what_products_cannot_share_is_refused(lines, tmp_path):
    run = create(tmp_path / "a", lines, **{"inspection.tile": 32})
    with pytest.raises(ConfigError, match="those of one product"):
        run.train()
    other = Run.create(
        tmp_path / "b",
        data=lines,
        model="autoencoder",
        settings={"data.layout": "products"},
    )
    with pytest.raises(ConfigError, match="patchcore"):
        other.train()


@pytest.mark.slow
def test_outputs_are_those_of_the_single_models(run, lines):
    images = sorted(str(path) for path in (lines / "nut/test").rglob("*.png"))
    rows = run.predict(images, product="nut")
    alone = Run(run.product("nut").path).predict(images)
    assert {row.pop("product") for row in rows} == {"nut"}
    assert rows == alone
    normal = run.predict(lines / "nut/test/good")
    assert {row["product"] for row in normal} == {"nut"}
    as_bolts = run.predict(images, product="bolt")
    assert {row["product"] for row in as_bolts} == {"bolt"}
    assert all(row["is_anomalous"] for row in as_bolts)
    with pytest.raises(ValueError, match=r"no product 'cap'.*bolt, nut"):
        run.predict(images, product="cap")


def test_an_image_of_none_of_them_is_unknown(run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3))
    Image.fromarray(pixels.astype("uint8")).save(tmp_path / "0.png")
    (row,) = run.predict(tmp_path / "0.png")
    assert (row["product"], row["is_anomalous"]) == ("unknown", True)


def test_metrics_and_report_have_a_row_for_each_product(run):
    metrics = run.evaluate()
    assert metrics == read_json(run.file("metrics.json"), "")
    values = metrics["per_product"]
    assert list(values) == ["bolt", "nut"]
    mean = np.mean([one["image_auroc"] for one in values.values()])
    assert metrics["image_auroc"] == mean
    assert metrics["recognition"]["num_images"] == {"bolt": 6, "nut": 6}
    page = run.report().read_text()
    assert 'href="products/nut/report.html"' in page
    assert (run.product("nut").file("report.html")) in map(
        str, run.report().parent.rglob("report.html")
    )


def test_thresholds_of_one_product_leave_the_others(run):
    before = run.model.calibration
    run.calibrate(threshold=5.0, product="nut")
    after = run.model.calibration
    assert after.products[0] == before.products[0]
    assert after.products[1].threshold == 5.0
    run.calibrate(restore="training", product="nut")
    with pytest.raises(ValueError, match="Name it with `product`"):
        run.calibrate(data="elsewhere")
    # Its own run alone would leave the model that is in use as it is.
    with pytest.raises(ValueError, match="with product='nut'"):
        Run(run.product("nut").path).calibrate(threshold=5.0)
    assert run.product("nut").joined.path == run.path
    assert RunFolder(run.path).joined is None


@pytest.mark.filterwarnings("ignore:Metrics need defective")
def test_products_without_defects_hide_no_metric(lines, tmp_path):
    data = tmp_path / "lines"
    shutil.copytree(lines, data)
    shutil.rmtree(data / "bolt/test/hole")
    run = create(tmp_path / "run", data)
    run.train()
    metrics = run.evaluate()
    assert "image_auroc" not in metrics
    assert "image_auroc" in metrics["per_product"]["nut"]
    page = run.report().read_text()
    assert "AUROC" in page
    part = run.product("nut")
    advice = f"keras-sspcab calibrate {run.path} --product nut --threshold"
    assert advice in Path(part.file("report.html")).read_text()
    # A part that is newer than the model of all is told.
    marked = MarkedImages(tmp_path / "marked")
    marked.add(str(data / "nut/test/good/0.png"), "false_alarm")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Run(part.path).train(resume=True, feedback=marked.path)
        run.evaluate()
    told = " ".join(str(warning.message) for warning in told)
    assert "Resume that run" in told
    assert "is older than those of: nut" in told
    # A product that is yet to be trained has no model.
    run.update_record(state="training", products=["bolt", "nut", "axle"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="There is no run folder"):
            run.evaluate()


def test_heat_maps_have_the_scale_of_the_product(run, lines, tmp_path):
    parts = run.model.calibration.products
    used = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            prediction.HeatScale,
            "of",
            lambda threshold, maps: (
                used.append(threshold) or HeatScale(1, True)
            ),
        )
        for name in ("bolt", "nut"):
            image = lines / name / "test/good/0.png"
            run.predict(image, heat_maps=tmp_path / "maps", product=name)
    assert used == [part.pixel_threshold for part in parts]


def test_all_products_get_new_thresholds_or_none(lines, tmp_path):
    data = tmp_path / "lines"
    shutil.copytree(lines, data)
    run = create(tmp_path / "run", data)
    run.train()
    before = run.model.calibration
    assert [part.quantile for part in before.products] == [0.95, 0.95]
    # What is calibrated on is no longer what was trained on.
    shutil.copy(data / "nut/test/good/0.png", data / "nut/train/good/new.png")
    with pytest.raises(ValueError, match="8 images.* then, 9 images.* now"):
        run.calibrate(false_alarms=0.2)
    assert load_detector(run.path).calibration == before
    for name in before.products:
        part = load_detector(run.product(name.name).path)
        assert part.calibration.quantile == 0.95
    os.unlink(data / "nut/train/good/new.png")
    run.calibrate(false_alarms=0.2)
    assert [one.quantile for one in run.model.calibration.products] == [0.8] * 2
    # Also of products that come later.
    assert Run(run.path).config.calibration.quantile == 0.8
    again = Run(run.path, {"calibration.quantile": 0.5})
    with pytest.raises(ConfigError, match="`keras-sspcab calibrate` changes"):
        again.train(resume=True)
    # Their numbers are those of clients.
    shutil.move(data / "bolt", tmp_path / "bolt")
    save_product(data / "axle", 130)
    with pytest.raises(ValueError, match="has no folder of: bolt"):
        Run(run.path).train(resume=True)


@pytest.mark.slow
def test_a_product_is_added_without_fitting_the_others(lines, tmp_path):
    data, path = tmp_path / "lines", tmp_path / "run"
    shutil.copytree(lines, data)
    grown = create(path, data)
    grown.train()
    assert grown.is_up_to_date
    # Its name comes before the others; thresholds of these may be new.
    save_product(data / "axle", 130)
    nut = path / "products/nut"
    grown.calibrate(false_alarms=0.2, product="nut")
    before = (nut / "model.keras").stat().st_mtime_ns
    again = Run(path)
    assert not again.is_up_to_date
    again.train(resume=True)
    assert again.is_up_to_date
    model = load_detector(str(path))
    assert model.products == ("bolt", "nut", "axle")
    assert model.calibration.products[1].quantile == 0.8
    assert (nut / "model.keras").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_product_whose_images_change(lines, tmp_path):
    data, path = tmp_path / "lines", tmp_path / "run"
    shutil.copytree(lines, data)
    create(path, data).train()
    bolt = (path / "products/bolt/model.keras").stat().st_mtime_ns
    shutil.copy(data / "nut/test/good/0.png", data / "nut/train/good/new.png")
    with pytest.warns(UserWarning, match=r"Remove .*nut and resume .*run to"):
        Run(path).train(resume=True)
    shutil.rmtree(path / "products/nut")
    assert not Run(path).is_up_to_date
    Run(path).train(resume=True)
    assert Run(path).is_up_to_date
    assert RunFolder(str(path)).product("nut").record["data"]["train"] == 9
    again = (path / "products/bolt/model.keras").stat().st_mtime_ns
    assert again == bolt


def test_a_folder_without_normal_images_gets_no_number(lines, tmp_path):
    data, path = tmp_path / "lines", tmp_path / "run"
    shutil.copytree(lines, data)
    shutil.copytree(lines / "nut/test/hole", data / "archive/test/hole")
    with pytest.raises(ValueError, match="archive"):
        create(path, data).train()
    assert not path.exists()
    # A training that was stopped in one may go on without it.
    folder = RunFolder(str(path))
    shutil.rmtree(data / "archive")
    folder.start(create(path, data).config)
    folder.update_record(products=["archive"])
    with pytest.raises(KeyboardInterrupt):
        Run(path).train(resume=True, progress=Stopping())
    assert folder.record["products"] == ["bolt", "nut"]


class Stopping(Progress):
    """Stops what says something."""

    def message(self, text):
        raise KeyboardInterrupt


def save_deep(root, white, count=8):
    rng = np.random.default_rng(white)
    root.mkdir(parents=True)
    for number in range(count):
        pixels = rng.integers(0, white + 1, (SIDE, SIDE), dtype="uint16")
        pixels[0, 0] = white
        Image.fromarray(pixels).save(root / f"{number}.png")


@pytest.mark.slow
def test_products_of_one_camera_share_their_white(lines, tmp_path, monkeypatch):
    data, path = tmp_path / "lines", tmp_path / "run"
    shutil.copytree(lines / "nut", data / "nut")
    save_deep(data / "dark/train/good", 900)
    save_deep(data / "bright/train/good", 3000)
    create(path, data).train()
    assert load_detector(str(path)).preprocessing.white_level == 4095
    assert Run(path).is_up_to_date
    # One that comes later is read like the others, or refused.
    save_deep(data / "later/train/good", 800)
    before = (path / "products/dark/model.keras").stat().st_mtime_ns
    measured, measure = set(), products.brightest_value

    def spy(image):
        measured.add(Path(image).relative_to(data).parts[0])
        return measure(image)

    monkeypatch.setattr(products, "brightest_value", spy)
    Run(path).train(resume=True)
    assert measured == {"later"}
    assert load_detector(str(path)).products[-1] == "later"
    after = (path / "products/dark/model.keras").stat().st_mtime_ns
    assert after == before
    save_deep(data / "white/train/good", 9000)
    with pytest.raises(ConfigError, match=r"white at 4095.*up to 9000.*16383"):
        Run(path).train(resume=True)
    assert len(RunFolder(str(path)).record["products"]) == 4


@pytest.mark.slow
def test_products_whose_images_have_moved_are_not_fitted_again(lines, tmp_path):
    data, path = tmp_path / "lines", tmp_path / "run"
    shutil.copytree(lines, data)
    run = create(path, data)
    run.train()
    run.evaluate()
    run.calibrate(threshold=7.5, product="nut")
    before = (path / "model.keras").stat().st_mtime_ns
    moved = data.rename(tmp_path / "moved")
    Run(path, {"data.path": str(moved)}).train(resume=True)
    assert (path / "model.keras").stat().st_mtime_ns == before
    assert Run(path).is_up_to_date
    assert run.model.calibration.products[1].threshold == 7.5
    assert os.path.exists(run.file("metrics.json"))
    nut = RunFolder(str(path)).product("nut")
    assert nut.config.data.path == str(moved / "nut")
    assert nut.record["data"]["root"] == str(moved / "nut")
    # Of other images it is fitted to these.
    shutil.copy(moved / "nut/test/good/0.png", moved / "nut/train/good/new.png")
    other = moved.rename(tmp_path / "other")
    with expecting("give way to those of this training: 7.5"):
        Run(path, {"data.path": str(other)}).train(resume=True)
    assert run.model.calibration.products[1].threshold != 7.5


@pytest.mark.slow
@pytest.mark.parametrize("format", ["savedmodel", "onnx", "tflite"])
def test_exports_take_the_product(run, lines, tmp_path, format):
    result = run.export(format, tmp_path)
    assert result.parity.passes
    runner = load_runner(result.path)
    model = load_detector(run.path)
    assert isinstance(model, ProductModel)
    samples = scan_image_folder(lines, "products").test
    images = np.stack(
        [np.asarray(Image.open(s.path), "float32") / 255 for s in samples[::4]]
    )
    for product in (-1, 0, 1):
        told = np.full(len(images), product, "int32")
        inputs = {"image": images, "product": told}
        expected = model.graph_with_options().predict_on_batch(inputs)
        received = runner(**inputs)
        for name in runner.output_names:
            np.testing.assert_allclose(
                received[name], expected[name], rtol=1e-3, atol=1e-3
            )
    assert "product_index" in runner.output_names


def test_integers_are_refused(run, tmp_path):
    with pytest.raises(ValueError, match="in integers"):
        run.export("tflite", tmp_path, precision="int8")


def test_the_server_takes_a_product_by_name(run, tmp_path):
    export = run.export("savedmodel", tmp_path)
    signature = LoadedVersion(export.path).signature("serving_default_options")
    image = np.full((SIDE, SIDE, 3), 0.2).tolist()

    def arrays(*products):
        rows = [{"image": image, "product": one} for one in products]
        body = json.dumps({"instances": [*rows, {"image": image}]})
        inputs = JsonRequest.parse(body.encode()).arrays(signature, 9)
        signature.check_values(inputs, False)
        return inputs

    inputs = arrays("nut", 0)
    assert inputs["product"].tolist() == [1, 0, -1]
    # An even gray is none of them.
    outputs = signature.run(inputs)
    assert outputs["product_index"].tolist() == [1, 0, -1]
    for unknown in ("cap", 2):
        with pytest.raises(ServingError, match="bolt, nut"):
            arrays(unknown)


def test_scoring_of_many_images_takes_the_product(run, lines):
    images = np.stack(
        [
            np.asarray(Image.open(lines / f"{name}/test/good/0.png"), "float32")
            for name in LEVELS
        ]
    )
    recognized = load_scorer(run.path)(images / 255)
    assert recognized["product_index"].tolist() == [0, 1]
    told = load_scorer(run.path, product="nut")(images / 255)
    assert told["product_index"].tolist() == [1, 1]
