"""Marks and versions by the page of the server."""

import errno
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest

from keras_sspcab.data import MarkedImages
from keras_sspcab.export.serving.repository import Repository
from keras_sspcab.export.serving.server import feedback
from tests.browser import check_page
from tests.export.serving.models import (
    NAME,
    add_version,
    copy_repository,
    encoded,
    images,
    tiny_detector,
)
from tests.export.serving.served import (
    TOKEN,
    connected,
    http_call,
    metric,
    serve,
    wait_until,
)
from tests.export.serving.test_server_page import (
    choose,
    decided,
    expected,
    files,  # noqa: F401
    opened,
    text,
    wait_for_scores,
)

BYTES = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module")
def repository(directory, tmp_path_factory):
    """One with versions 1 and 2."""
    path = tmp_path_factory.mktemp("feedback") / "repository"
    return copy_repository(directory, path, versions=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("marks") / "feedback"


@pytest.fixture(scope="module")
def server(repository, folder):
    with serve(
        repository.directory, feedback=folder, max_image_pixels=10_000
    ) as server:
        yield server


def post(server, path, body=b"", headers=BYTES, **query):
    return http_call(server, f"{path}?{urlencode(query)}", body, headers)


@pytest.fixture
def picture():
    return encoded(images(1)[0])


def test_marks_are_kept_with_the_answer(server, folder, picture):
    answer = {"model": NAME, "version": 2, "score": 3.25, "threshold": 3}
    status, counts = post(
        server, "/feedback", picture, mark="missed", name="a/7.png", **answer
    )
    assert (status, counts) == (200, {"false_alarms": 0, "missed": 1})
    (kept,) = MarkedImages(folder).missed
    assert kept.read_bytes() == picture
    last = json.loads((folder / "marks.jsonl").read_text().splitlines()[-1])
    assert {key: last[key] for key in answer} == answer
    post(server, "/feedback", picture, mark="false_alarm")
    _, counts = post(server, "/feedback", picture, mark="none")
    assert counts == {"false_alarms": 0, "missed": 0}


def test_what_is_refused_leaves_nothing(server, folder, picture):
    before = MarkedImages(folder).missed
    large = encoded(images(1)[0].repeat(10, axis=0).repeat(10, axis=1))
    for body, query, headers, code in (
        (picture, {"mark": "right"}, BYTES, 400),
        (picture, {"mark": "missed", "score": "high"}, BYTES, 400),
        (picture, {"mark": "missed", "score": "nan"}, BYTES, 400),
        (picture, {"mark": "missed", "threshold": "inf"}, BYTES, 400),
        (b"no image", {"mark": "missed"}, BYTES, 400),
        (picture[:-30], {"mark": "missed"}, BYTES, 400),
        (large, {"mark": "missed"}, BYTES, 413),
        # What another site could have a browser send.
        (picture, {"mark": "missed"}, {"content-type": "text/plain"}, 415),
        (picture, {"mark": "missed"}, {"host": "evil.example"}, 403),
    ):
        sent = {**BYTES, **headers}
        status, answer = post(server, "/feedback", body, sent, **query)
        assert (status, bool(answer["error"])) == (code, True), query
    assert MarkedImages(folder).missed == before
    for model, version in (("x", 1), ("/proc", 1), ("a" * 5000, 1), (NAME, 9)):
        status, _ = post(server, "/version", model=model, version=version)
        assert status == (400 if model == NAME else 404)
    status, answer = post(server, "/version", model=NAME, version="old")
    assert "`version` is a number, or latest" in answer["error"]


def test_only_with_the_option_and_the_token(picture, tmp_path):
    with serve() as server:
        assert post(server, "/feedback", picture, mark="missed")[0] == 404
        assert post(server, "/version", model=NAME, version=1)[0] == 404
        assert http_call(server, "/page.json")[1]["feedback"] is False
    with serve(feedback=tmp_path / "marks", token=TOKEN) as server:
        for path in ("/feedback", "/version"):
            assert post(server, path, picture, mark="missed")[0] == 401
        headers = {**BYTES, "authorization": f"Bearer {TOKEN}"}
        post(server, "/feedback", picture, headers, mark="missed")
        assert len(MarkedImages(tmp_path / "marks").missed) == 1
        # A folder of versions is no repository: there is nothing to choose.
        _, page = http_call(server, "/page.json", headers=headers)
        assert page["models"][0]["versions"] == []


def test_slow_files_hold_up_nobody(server, picture, monkeypatch):
    """Counting the frames of an animation, say, may take seconds."""
    may_go_on = threading.Event()
    counted = feedback.count_pixels

    def count_slowly(*args):
        assert may_go_on.wait(20)
        return counted(*args)

    monkeypatch.setattr(feedback, "count_pixels", count_slowly)
    with ThreadPoolExecutor(1) as pool:
        marked = pool.submit(post, server, "/feedback", picture, mark="missed")
        try:
            wait_until(lambda: metric(server, "keras_sspcab_pending_bytes") > 0)
        finally:
            may_go_on.set()
        assert marked.result()[0] == 200
    post(server, "/feedback", picture, mark="none")


def test_senders_that_go_are_no_fault_of_the_server(server, caplog):
    head = b"POST /feedback?mark=missed HTTP/1.1\r\nhost: localhost\r\n"
    head += b"content-type: application/octet-stream\r\n"
    with connected(server) as connection:
        connection.sendall(head + b"content-length: 100\r\n\r\nbegun")
        wait_until(lambda: metric(server, "keras_sspcab_pending_bytes") == 5)
    wait_until(lambda: metric(server, "keras_sspcab_pending_bytes") == 0)
    assert not caplog.records


def test_faults_of_the_folder_are_told(picture, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match="cannot be written to the folder"),
        serve(feedback=tmp_path / "file" / "marks"),
    ):
        pass
    with serve(feedback=tmp_path / "marks") as server:
        name = "\N{CJK UNIFIED IDEOGRAPH-96F6}" * 80 + ".png"
        assert post(server, "/feedback", picture, mark="missed", name=name) == (
            200,
            {"false_alarms": 0, "missed": 1},
        )

        def fail(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(MarkedImages, "add", fail)
        status, answer = post(server, "/feedback", picture, mark="missed")
        assert status == 500
        assert "could not be kept: No space left" in answer["error"]
        monkeypatch.setattr(MarkedImages, "add", lambda *_: 1 / 0)
        status, answer = post(server, "/feedback", picture, mark="missed")
        assert (status, answer["error"]) == (
            500,
            "The server failed on this: ZeroDivisionError",
        )


def test_a_server_of_certain_versions_offers_no_others(repository, tmp_path):
    before = (repository.directory / "models.config").read_text()
    with serve(
        repository.directory, feedback=tmp_path / "marks", versions=(2,)
    ) as server:
        _, page = http_call(server, "/page.json")
        assert page["models"][0]["versions"] == []
        status, answer = post(server, "/version", model=NAME, version=1)
        assert status == 400
        assert "started for certain versions" in answer["error"]
    assert (repository.directory / "models.config").read_text() == before


def test_the_version_of_the_button_is_served(browser, directory, tmp_path):
    repository = copy_repository(directory, tmp_path / "repository", versions=2)
    repository.rollback(NAME, 1)
    with serve(repository.directory, feedback=tmp_path / "marks") as server:
        opened(browser, server)
        wait_until(lambda: text(browser, "version") == "2\n1, served")
        # Meanwhile another one is packaged, which the page does not know.
        add_version(repository.directory / "models" / NAME, 3)
        browser.find_element(
            "css selector", "#version option:first-child"
        ).click()
        browser.find_element("id", "serve-version").click()
        wait_until(lambda: text(browser, "message") == "Version 2 is served.")
        assert repository.served(NAME) == (2,)


def test_an_older_version_is_one_click_away(browser, server, repository):
    def served():
        return Repository(repository.directory).served(NAME)

    opened(browser, server)
    wait_until(lambda: text(browser, "version") == "2, served\n1")
    button = browser.find_element("id", "serve-version")
    assert not button.is_displayed()
    browser.find_element("css selector", "#version option:last-child").click()
    assert button.text == "Serve version 1 from now on"
    button.click()
    wait_until(lambda: text(browser, "message") == "Version 1 is served.")
    assert served() == (1,)
    assert not button.is_displayed()
    # And back: then new versions are served as they come.
    browser.find_element("css selector", "#version option:first-child").click()
    button.click()
    wait_until(lambda: text(browser, "message") == "Version 2 is served.")
    assert served() == (2,)
    config = (repository.directory / "models.config").read_text()
    assert "specific" not in config


def test_wrong_answers_are_marked(browser, server, folder, files):  # noqa: F811
    from selenium.webdriver import Keys

    opened(browser, server)
    before = len(MarkedImages(folder).false_alarms)
    choose(browser, *files)
    wait_for_scores(browser, 2)
    for index, (name, mark) in enumerate(
        [("Missed defect", "missed"), ("False alarm", "false_alarm")]
    ):
        strip = browser.find_elements("css selector", "#strip button")
        strip[index].click()
        button = browser.find_element("id", "wrong")
        assert button.text == f"{name}?"
        button.click()
        wait_until(lambda: button.text == f"Kept as {name.lower()}")  # noqa: B023
        assert button.get_attribute("aria-pressed") == "true"
        paths = getattr(
            MarkedImages(folder), {"missed": "missed"}.get(mark, "false_alarms")
        )
        assert files[index].read_bytes() in [p.read_bytes() for p in paths]
    assert text(browser, "message").startswith("Kept so far: ")
    outputs = expected(*files)
    for key, sensitivity in ((None, 0.5), (Keys.HOME, 0), (Keys.END, 1)):
        if key is not None:
            browser.find_element("id", "sensitivity").send_keys(key)
        calibration = tiny_detector().calibration
        adjusted = calibration.adjusted(sensitivity=sensitivity)
        is_missed, is_alarm = map(int, decided(adjusted, outputs))
        assert text(browser, "marked") == (
            f"Of what you marked, {is_alarm} of 1 false alarms and "
            f"{1 - is_missed} of 1 missed defects would be left."
        )
    browser.find_element("id", "calibrated").click()
    button.click()
    wait_until(lambda: button.text == "False alarm?")
    assert len(MarkedImages(folder).false_alarms) == before


def test_the_page_stays_accessible(browser, server, files):  # noqa: F811
    for _ in check_page(browser, f"http://127.0.0.1:{server.rest_port}/"):
        choose(browser, files[1])
        wait_for_scores(browser, 1)
        browser.find_element("id", "wrong").click()
        wait_until(lambda: text(browser, "wrong") == "Kept as false alarm")
        browser.find_element(
            "css selector", "#version option:last-child"
        ).click()
