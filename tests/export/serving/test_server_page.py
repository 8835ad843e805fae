"""The page of the server in a real browser."""

import base64

import keras
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.export import export_saved_model
from keras_sspcab.hosts import InspectionModel
from keras_sspcab.pictures.heat import COLOR_TABLE
from keras_sspcab.regions import Region, Regions
from tests.browser import check_page, set_width, style, texts, violations
from tests.export.serving.models import (
    NAME,
    add_version,
    direct,
    encoded,
    images,
    remove_version,
    run_directly,
    tiny_detector,
)
from tests.export.serving.served import http_call, serve, wait_until

HOSTILE = "<img src=x onerror=alert(1)>.png"
DROP = """
const [name, data, target] = arguments;
const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], name));
for (const type of ["dragenter", "dragover", "drop"])
  document.querySelector(target).dispatchEvent(new DragEvent(
    type, { bubbles: true, cancelable: true, dataTransfer: transfer }));
"""
MOVE = """
const slider = document.getElementById("sensitivity");
slider.value = arguments[0];
slider.dispatchEvent(new Event("input", { bubbles: true }));
"""
PIXELS = """
const canvas = document.getElementById(arguments[0]);
const { width, height } = canvas;
const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
return [width, height, Array.from(data)];
"""


@pytest.fixture
def page(browser, server):
    return opened(browser, server)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A normal and an anomalous image, neither of the size of the model."""
    folder = tmp_path_factory.mktemp("files")
    noise = Image.fromarray((images(1)[0, ..., 0] * 255).astype("uint8"))
    noise.resize((96, 64), Image.Resampling.NEAREST).save(folder / "noise.png")
    blank = np.zeros((48, 48, 3), "uint8")
    blank[10:20, 10:20] = 255
    Image.fromarray(blank).save(folder / "blank.bmp")
    names = ["noise.png", "blank.bmp"]
    outputs = expected(folder / names[0], folder / names[1])
    order = np.argsort(outputs["is_anomalous"])
    assert sorted(outputs["is_anomalous"]) == [False, True]
    return [folder / names[index] for index in order]


def opened(browser, server):
    set_width(browser, 1280)
    browser.get(f"http://127.0.0.1:{server.rest_port}/")
    return browser


def expected(*files, version=1):
    contents = [file.read_bytes() for file in files]
    return direct("serving_bytes", version, image_bytes=contents)


def choose(page, *files):
    page.find_element("id", "file").send_keys("\n".join(map(str, files)))


def text(page, name):
    return page.find_element("id", name).text


def number(value, digits=2):
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def wait_for_scores(page, count):
    def is_done():
        shown = texts(page, "#strip button span")
        is_idle = not text(page, "message").startswith("Scoring")
        return len(shown) == count and "\u2026" not in shown and is_idle

    wait_until(is_done)


def assert_shown(page, file, version=1):
    """The page shows of a file what the SavedModel says of it."""
    outputs = {k: v[0] for k, v in expected(file, version=version).items()}
    flag = "Anomalous" if outputs["is_anomalous"] else "Normal"
    assert text(page, "flag") == flag
    verdict = page.find_element("id", "verdict")
    assert verdict.get_attribute("class") == f"tile {flag.lower()}"
    assert text(page, "by") == f"says {NAME}, version {version}"
    calibration = tiny_detector(version).calibration
    conflict = calibration.describe_conflict(
        outputs["anomaly_score"], outputs["anomaly_map"]
    )
    said = [conflict, f"anomalous {calibration.describe_rule()}"]
    assert text(page, "rule") == "; ".join(filter(None, said))
    assert text(page, "score") == number(outputs["anomaly_score"])
    assert text(page, "name") == file.name
    return outputs


def assert_heat(page, anomaly_map):
    """The map in the colors of the report, at their scale."""
    limit = 2 * tiny_detector().calibration.pixel_threshold
    levels = np.clip(anomaly_map / limit, 0, 1) * (len(COLOR_TABLE) - 1)
    alpha = COLOR_TABLE[np.round(levels).astype(int), 3]
    width, height, pixels = page.execute_script(PIXELS, "heat")
    assert (width, height) == anomaly_map.shape[::-1]
    drawn = np.reshape(pixels, (height, width, 4))
    # Where a value lies between two colors, either will do.
    np.testing.assert_allclose(drawn[..., 3], alpha, atol=4)
    if text(page, "flag") == "Anomalous":
        assert np.ptp(drawn[..., 3]) > 100  # not blank
    assert text(page, "limit") == f"{number(limit, 1)}+"


def test_upload(page, files):
    from selenium.webdriver import Keys

    threshold = tiny_detector().calibration.threshold
    for count, file in enumerate(files, start=1):
        choose(page, file)
        wait_for_scores(page, count)
        outputs = assert_shown(page, file)
        assert_heat(page, outputs["anomaly_map"])
        assert text(page, "threshold") == number(threshold)
        with Image.open(file) as image:
            width, height = image.size
        wait_until(
            lambda size=f"{width} \u00d7 {height} pixels": (
                text(page, "size") == size
            )
        )
        # The map lies on the image, which keeps its proportions.
        shown, heat = (
            page.find_element("id", name).rect for name in ("image", "heat")
        )
        assert shown == heat
        assert shown["width"] / shown["height"] == pytest.approx(
            width / height, rel=0.02
        )
    scores = expected(*files[::-1])["anomaly_score"]
    assert texts(page, "#strip button span") == [number(s) for s in scores]
    assert style(page, "#heat", "opacity") == "0.75"
    page.find_element("id", "opacity").send_keys(Keys.HOME)
    assert style(page, "#heat", "opacity") == "0"
    assert text(page, "opacity-value") == "0 %"
    # The bar ends before the mark if and only if the image is normal.
    score, mark = (
        page.find_element("id", name).rect for name in ("bar", "mark")
    )
    is_beyond = score["x"] + score["width"] >= mark["x"]
    assert is_beyond == (text(page, "flag") == "Anomalous")


def test_a_slider_shows_what_another_sensitivity_would_flag(page, files):
    from selenium.webdriver import Keys

    choose(page, *files)
    wait_for_scores(page, 2)
    slider = page.find_element("id", "sensitivity")
    back = page.find_element("id", "calibrated")
    assert text(page, "counts") == "1 of 2 images flagged, as calibrated."
    assert not back.is_enabled()
    slider.send_keys(Keys.HOME)
    calibration = tiny_detector().calibration
    doubled = number(2 * calibration.threshold)
    assert slider.get_attribute("aria-valuetext") == f"0 %, threshold {doubled}"
    assert_flags(page, calibration.adjusted(sensitivity=0.0), files)
    slider.send_keys(Keys.END)
    assert_flags(page, calibration.adjusted(sensitivity=1.0), files)
    assert text(page, "threshold") == "0.00"
    assert "sensitivity=1;" in text(page, "keep")
    back.click()
    assert_flags(page, calibration, files)
    assert slider.get_attribute("value") == "50"
    assert page.switch_to.active_element == slider


def assert_flags(page, calibration, files):
    """The strip, its counts and the verdict say what a calibration does."""
    assert_flagged(page, decided(calibration, expected(*files)))


def decided(calibration, outputs):
    flags = calibration.decide(outputs["anomaly_score"], outputs["anomaly_map"])
    for index, part in enumerate(calibration.regions):
        flags = flags | part.decide(outputs["region_scores"][:, index], None)
    return flags


def assert_flagged(page, flags):
    shown = [
        button.get_attribute("class")
        for button in page.find_elements("css selector", "#strip button")
    ]
    assert shown == ["anomalous" if flag else "normal" for flag in flags]
    assert text(page, "counts").startswith(
        f"{flags.sum()} of {len(flags)} images flagged"
    )
    selected = page.find_element("css selector", "#strip [aria-pressed=true]")
    flag = selected.get_attribute("class")
    assert text(page, "flag") == flag.capitalize()


@pytest.mark.parametrize("target", ["#drop", "h1"])
def test_drag_and_drop(page, files, target):
    """Also beside the box, where the browser would open the file."""
    data = base64.b64encode(files[1].read_bytes()).decode()
    page.execute_script(DROP, files[1].name, data, target)
    wait_for_scores(page, 1)
    assert_shown(page, files[1])
    # Names are text.
    page.execute_script(DROP, HOSTILE, data, target)
    wait_for_scores(page, 2)
    assert text(page, "name") == HOSTILE
    assert page.find_elements("css selector", "img[src=x]") == []


def test_files_that_are_no_images(page, files, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "cut.png").write_bytes(encoded(images(1)[0])[:-40])
    choose(page, tmp_path / "notes.txt")
    wait_for_scores(page, 1)
    message = page.find_element("id", "message")
    assert message.text.startswith("notes.txt: it must be a PNG, JPEG, BMP")
    assert message.get_attribute("class") == "error"
    assert not page.find_element("id", "result").is_displayed()
    choose(page, tmp_path / "cut.png", files[0])
    wait_for_scores(page, 3)
    assert message.text.startswith("cut.png: ")
    assert texts(page, "#strip button span")[::2] == ["failed"] * 2
    page.find_elements("css selector", "#strip button")[1].click()
    assert message.text == ""
    assert_shown(page, files[0])


def test_the_page_is_accessible_and_asks_no_other_server(
    browser, server, files, tmp_path
):
    (tmp_path / "notes.txt").write_text("no image")
    address = f"http://127.0.0.1:{server.rest_port}/"
    for _ in check_page(browser, address):
        assert violations(browser) == []  # before there is an image
        choose(browser, tmp_path / "notes.txt")
        wait_for_scores(browser, 1)
        assert violations(browser) == []
        browser.get_log("browser")  # which names the refused request
        choose(browser, *files * 6)
        wait_for_scores(browser, 13)


def test_a_new_version_comes_while_the_page_is_open(browser, files, tmp_path):
    folder = tmp_path / NAME
    add_version(folder, 1)
    with serve(folder) as server:
        page = opened(browser, server)
        choose(page, files[0])
        wait_for_scores(page, 1)
        assert_shown(page, files[0])
        add_version(folder, 2, version=2)
        remove_version(folder, 1)
        path = f"/v1/models/{NAME}/versions/1"
        wait_until(lambda: "'END'" in str(http_call(server, path)))
        choose(page, files[0])
        wait_for_scores(page, 2)
        assert_shown(page, files[0], version=2)
    choose(page, files[0])
    wait_for_scores(page, 3)
    assert text(page, "message").endswith("The server cannot be reached.")


def test_the_token_is_asked_for(browser, files):
    from selenium.webdriver import Keys

    with serve(token="correct-horse-battery") as server:
        page = opened(browser, server)
        entry = page.find_element("id", "token")
        wait_until(entry.is_displayed)
        choose(page, files[0])
        wait_for_scores(page, 1)
        assert "needs a token" in text(page, "message")
        entry.send_keys("correct-horse-battery", Keys.ENTER)
        wait_until(lambda: texts(page, "#strip span") != ["failed"])
        wait_for_scores(page, 1)
        assert_shown(page, files[0])


def test_one_of_several_models_is_chosen(browser, files, tmp_path):
    from selenium.webdriver.support.ui import Select

    add_version(tmp_path / NAME, 1)
    add_version(tmp_path / "zinc", 2, version=2)
    with serve(tmp_path) as server:
        page = opened(browser, server)
        choose(page, *files)
        wait_for_scores(page, 2)
        assert_shown(page, files[0])
        assert text(page, "counts") == "1 of 2 images flagged, as calibrated."
        choice = Select(page.find_element("id", "model"))
        assert [option.text for option in choice.options] == [
            f"{NAME}, version 1",
            "zinc, version 2",
        ]
        choice.select_by_value("zinc")
        wait_until(lambda: text(page, "by") == "says zinc, version 2")
        outputs = expected(*files, version=2)
        assert text(page, "score") == number(outputs["anomaly_score"][0])
        # All images are scored again, and only these scores count.
        wait_for_scores(page, 2)
        assert texts(page, "#strip button span") == [
            number(score) for score in outputs["anomaly_score"]
        ]
        count = sum(outputs["is_anomalous"])
        assert text(page, "counts").startswith(f"{count} of 2 images flagged")
        # There and back, while images are under way.
        for name in (NAME, "zinc", NAME):
            choice.select_by_value(name)
        wait_until(lambda: text(page, "by") == f"says {NAME}, version 1")
        wait_for_scores(page, 2)
        assert texts(page, "#strip button span") == [
            number(score) for score in expected(*files)["anomaly_score"]
        ]
        assert text(page, "counts") == "1 of 2 images flagged, as calibrated."


@pytest.fixture(scope="module")
def regions(tmp_path_factory):
    """The folder of a model with two regions, and the model."""
    keras.utils.set_random_seed(0)
    labels = np.zeros((32, 48), int)
    labels[4:28, 4:20], labels[4:28, 24:40] = 1, 2
    parts = (Region("thread"), Region("<b>head</b>"))
    model = InspectionModel(
        AutoEncoder((32, 32, 1), filters=(4, 4, 2)),
        (32, 48),
        regions=Regions(labels, parts),
        name="screws",
    )
    normal = np.random.default_rng(0).random((12, 32, 48, 1), "float32")
    model.calibrate(normal, decision="either")
    path = tmp_path_factory.mktemp("regions") / "screws"
    export_saved_model(model, path, images=normal[:2])
    return path, model, labels > 0


def test_regions(browser, regions, tmp_path):
    path, model, inside = regions
    chosen = []
    for index in range(4):
        image = images(1, seed=index)[0, :, :, 0].repeat(2, axis=1)[:, :48]
        image[10:20, 28:34] *= index / 3
        chosen.append(tmp_path / f"{index}.png")
        chosen[-1].write_bytes(encoded(image))
    contents = [file.read_bytes() for file in chosen]
    outputs = run_directly(path / "1", "serving_bytes", image_bytes=contents)
    with serve(path) as server:
        page = opened(browser, server)
        choose(page, *chosen)
        wait_for_scores(page, 4)
        rows = texts(page, "#region-rows tr")
        names = texts(page, "#region-rows th")
        assert names == ["thread", "<b>head</b>"]
        for row, score in zip(rows, outputs["region_scores"][0], strict=True):
            assert number(score) in row
        width, height, pixels = page.execute_script(PIXELS, "outline")
        drawn = np.reshape(pixels, (height, width, 4))[..., 3] > 0
        np.testing.assert_array_equal(
            drawn, inside ^ ndimage.binary_erosion(inside)
        )
        for sensitivity in (0, 20, 45, 50, 55, 80, 100):
            page.execute_script(MOVE, sensitivity)
            adjusted = model.calibration.adjusted(sensitivity=sensitivity / 100)
            assert_flagged(page, decided(adjusted, outputs))
        for _ in check_page(browser, f"http://127.0.0.1:{server.rest_port}/"):
            choose(browser, *chosen)
            wait_for_scores(browser, 4)
            page.execute_script(MOVE, 80)
