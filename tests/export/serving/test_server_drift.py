"""A server tells when it is asked about images unlike those of the training."""

import keras
import numpy as np
import pytest

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.export import export_saved_model
from keras_sspcab.export.serving.server import drift
from keras_sspcab.export.serving.server.drift import DriftWatch
from keras_sspcab.scoring import DriftReference, input_statistics
from tests.browser import texts
from tests.export.serving.models import (
    NAME,
    SIZE,
    add_version,
    encoded,
    images,
)
from tests.export.serving.served import (
    b64,
    calling,
    http_call,
    in_threads,
    metric,
    predict_path,
    predict_request,
    serve,
    wait_until,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a model that knows a hundred normal images."""
    keras.utils.set_random_seed(0)
    detector = AutoEncoder((SIZE, SIZE, 1), filters=(8, 8, 4), smoothing=3)
    detector.compile()
    detector.calibrate(images(100))
    path = tmp_path_factory.mktemp("drift") / NAME
    export_saved_model(detector, path, images=images(4))
    return path


@pytest.fixture
def patient(monkeypatch):
    """Every request is looked at."""
    monkeypatch.setattr(drift, "_SHARE", 1e9)


@pytest.fixture
def watched(model, patient):
    with serve(model) as server, calling(server) as caller:
        yield server, caller


def num_watched(server):
    return metric(server, "keras_sspcab_drift_images")


def ask(server, caller, batch):
    """Asks, and waits until the answer has been looked at."""
    before = num_watched(server)
    caller.predict(predict_request(image=batch))
    wait_until(lambda: num_watched(server) == before + len(batch))


def state(server):
    _, page = http_call(server, "/page.json")
    return page["models"][0]["drift"]


def test_darker_images_are_told_everywhere(watched, browser):
    server, caller = watched
    for seed in range(8):
        ask(server, caller, images(10, seed))
    assert state(server) == {"num_images": 80, "drifts": []}
    assert metric(server, "keras_sspcab_drift") == 0
    browser.get(f"http://127.0.0.1:{server.rest_port}/")
    wait_until(lambda: browser.find_elements("css selector", "#model option"))
    assert not browser.find_element("id", "drift").is_displayed()
    for seed in range(8):
        ask(server, caller, np.float32(0.6) * images(10, seed))
    told = {each["statistic"]: each for each in state(server)["drifts"]}
    assert {*told, "score"} == {"brightness", "contrast", "score"}
    assert told["brightness"]["since"] == pytest.approx(81, abs=3)
    labels = {"model": NAME, "version": "1", "statistic": "brightness"}
    assert metric(server, "keras_sspcab_drift", **labels) == 1
    assert metric(server, "keras_sspcab_drift_shift", **labels) < -3
    labels["statistic"] = "sharpness"
    assert metric(server, "keras_sspcab_drift", **labels) == 0
    browser.execute_script("watchDrift()")
    wait_until(browser.find_element("id", "drift").is_displayed)
    assert "since" in browser.find_element("id", "drift-title").text
    assert any(
        "Images are darker" in text for text in texts(browser, "#drifts li")
    )
    # And it passes.
    for seed in range(8):
        ask(server, caller, images(10, seed))
    assert state(server)["drifts"] == []


def test_requests_that_come_at_once_and_files_count(watched):
    server, caller = watched
    files = [{"image_bytes": b64(encoded(image))} for image in images(4)]
    body = {"signature_name": "serving_bytes", "instances": files}
    calls = [
        lambda: http_call(server, predict_path(), body),
        lambda: caller.predict(predict_request(image=images(2))),
    ]
    for answer in in_threads(calls * 4):
        assert not isinstance(answer, Exception)
    # Those that came while another one was looked at are passed over.
    wait_until(lambda: num_watched(server) >= 2)
    assert state(server)["drifts"] == []


@pytest.fixture
def reference():
    scores = {"score": np.linspace(-2, 2, 50)}
    return DriftReference.measure({**input_statistics(images(50)), **scores})


@pytest.fixture
def report():
    return {
        "preprocessing": {},
        "image_size": [SIZE, SIZE],
        "inputs": {"image": {"shape": [None, SIZE, SIZE, 1]}},
    }


def test_files_look_as_their_pixels_do(report, reference, patient):
    batch = np.round(images(5) * 255) / np.float32(255)
    shifts = []
    files = np.array([encoded(image) for image in batch], object)
    for inputs in ({"image": batch}, {"image_bytes": files}):
        watch = DriftWatch(report, reference)
        watch.observe(inputs, {"anomaly_score": np.arange(5.0)})
        assert watch.monitor.num_images == 5
        shifts.append(watch.monitor.shifts)
    assert shifts[0] == pytest.approx(shifts[1], abs=0.05)
    assert shifts[0]["score"] > 0


def test_watching_takes_a_small_share_of_the_time(
    report, reference, monkeypatch
):
    monkeypatch.setattr(drift, "_SHARE", 1e-6)
    watch = DriftWatch(report, reference)
    assert watch.is_due
    for _ in range(3):
        watch.observe({"image": images(2)}, {})
    assert not watch.is_due
    assert watch.monitor.num_images == 2


def test_notes_of_others_do_not_keep_a_model_from_being_served(tmp_path):
    folder = tmp_path / NAME
    add_version(folder, 1)
    (folder / "1/parity.json").write_text('{"calibration": {"products": 3}}')
    with serve(folder) as server:
        status, data = http_call(server, "/page.json")
        assert status == 200
        (model,) = data["models"]
        assert (model["name"], model["threshold"]) == (NAME, None)
        body = {"inputs": images(1).tolist()}
        assert http_call(server, predict_path(), body)[0] == 200


def test_what_cannot_be_watched_is_let_be(report, reference, caplog):
    assert DriftWatch({}, reference).describe() is None
    assert not DriftWatch({**report, "inputs": None}, reference).is_due
    assert not DriftWatch(report, None).is_due
    watch = DriftWatch(report, reference)
    broken = np.array([b"no image"], object)
    watch.observe({"image_bytes": broken}, {})
    assert "Drift is watched no longer" in caplog.text
    assert not watch.is_due
