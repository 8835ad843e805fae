"""The live page: who may see it, and how it looks in a real browser."""

import contextlib
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from keras_sspcab.export.serving.server import ServerOptions
from keras_sspcab.export.watch import Watch, WatchOptions
from tests.browser import check_page, set_width
from tests.export.watch.cameras import Brightness, running, wait_until

pytest.importorskip("uvicorn")

TOKEN = "for-my-eyes"


@pytest.fixture
def watch_page(camera, tmp_path):
    """Runs a watch with a page, as options say; yields it and the address."""
    with contextlib.ExitStack() as stack:

        def watch_page(**options):
            watch = Watch(
                Brightness(),
                camera.url,
                tmp_path / "out",
                WatchOptions(alarm_after=2, clear_after=3, timeout=1),
                ServerOptions(rest_port=0, **options),
            )
            stack.enter_context(running(watch))
            wait_until(lambda: watch.live.num_scored)
            return watch, watch.page_url

        yield watch_page


def watch_page_with_alarm(camera, watch_page):
    """Runs a watch until its page has an alarm that has ended, and its clip."""
    watch, url = watch_page()
    camera.is_anomalous = True
    wait_until(lambda: watch.live.describe()["alarms"])
    camera.is_anomalous = False
    wait_until(lambda: watch.live.describe()["alarms"][0].get("clip"))
    return watch, url


def ask(url, **headers):
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def test_what_the_page_is_told(camera, watch_page):
    watch, url = watch_page_with_alarm(camera, watch_page)
    status, body, headers = ask(f"{url}/live.json")
    live = json.loads(body)
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert live["source"].startswith("http://127.0.0.1")
    assert b"secret" not in body
    assert b"hidden" not in body
    assert live["state"] == "connected"
    assert live["threshold"] == 3.0
    assert live["frame"]["image"].startswith("data:image/jpeg;base64,")
    assert live["frame"]["heat"].startswith("data:image/png;base64,")
    assert max(score for _, _, score, _ in live["scores"]) > 3
    (alarm,) = live["alarms"]
    for name, kind in (("picture", "image/jpeg"), ("clip", "video/mp4")):
        status, body, headers = ask(f"{url}/{alarm[name]}")
        assert (status, headers["content-type"]) == (200, kind)
        assert len(body) > 500
    newest = live["frame"]["number"]
    later = json.loads(ask(f"{url}/live.json?since={newest}")[1])
    assert all(number > newest for number, *_ in later["scores"])
    watch.live.show = lambda *_: None
    later = json.loads(ask(f"{url}/live.json")[1])["frame"]["number"]
    same = json.loads(ask(f"{url}/live.json?shown={later}")[1])
    assert "image" not in same["frame"]


@pytest.mark.parametrize(
    "path",
    ["alarms.jsonl", "alarms/..%2falarms.jsonl", "alarms/x.mp4", "alarms/"],
)
def test_nothing_else_is_given_away(watch_page, path):
    watch, url = watch_page()
    with open(f"{watch.folder}/alarms.jsonl", "w") as file:
        file.write("{}\n")
    assert ask(f"{url}/{path}")[0] == 404
    assert ask(f"{url}/live.json?since=x")[0] == 400


def test_the_page_asks_for_its_token(watch_page):
    _, url = watch_page(token=TOKEN)
    for path in ("live.json", "alarms/20260101-000000-000.jpg"):
        assert ask(f"{url}/{path}")[0] == 401
        assert ask(f"{url}/{path}", authorization="Bearer wrong")[0] == 401
    assert ask(f"{url}/live.json", authorization=f"Bearer {TOKEN}")[0] == 200
    # What everyone may see holds nothing.
    assert ask(url)[0] == 200


def test_strange_names_of_this_machine_are_refused(watch_page):
    _, url = watch_page()
    port = urlsplit(url).port
    assert ask(f"{url}/live.json", host=f"evil.example:{port}")[0] == 403
    assert ask(f"{url}/live.json", host=f"localhost:{port}")[0] == 200


def test_packages_of_the_page_are_asked_for(camera, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ImportError, match=r"keras-sspcab\[serve\]"):
        Watch(Brightness(), camera.url, tmp_path, page=ServerOptions())
    # Without a page it does without.
    Watch(Brightness(), camera.url, tmp_path)


def test_others_are_let_in_with_a_warning(camera, tmp_path):
    watch = Watch(
        Brightness(),
        camera.url,
        tmp_path,
        page=ServerOptions(host="0.0.0.0", rest_port=0),
    )
    with pytest.warns(UserWarning, match="asks for no token") as caught:
        watch.run(lambda: True)
    # The command line shows those of this package.
    assert Path(caught[0].filename).parts[-2:] == ("watch", "page.py")


def test_the_page_in_a_browser(browser, camera, watch_page):
    watch, url = watch_page()
    camera.is_anomalous = True
    wait_until(lambda: watch.live.describe()["alarms"])
    for _ in check_page(browser, url):
        texts = wait_until(lambda: shown(browser))
        assert texts["state"] == "connected"
        assert texts["flag"] == "Anomalous"
        assert texts["score"] == "8.00"
        assert texts["threshold"] == "3.00"
        assert texts["alarm-count"] == "1"
        wait_until(lambda: natural_width(browser, "image") == 64)
        wait_until(lambda: natural_width(browser, "heat") == 8)
        wait_until(lambda: natural_width(browser, "alarms") > 0)
    curve = browser.find_element("id", "curve").get_attribute("d")
    assert curve.startswith("M")


def test_an_alarm_is_looked_at_by_keyboard(browser, camera, watch_page):
    _, url = watch_page_with_alarm(camera, watch_page)
    set_width(browser, 1366)
    browser.get(url)
    wait_until(lambda: browser.find_elements("css selector", "#alarms button"))
    for _ in range(8):
        browser.switch_to.active_element.send_keys("\ue004")
        active = browser.switch_to.active_element
        if active.find_elements("xpath", "ancestor::ol[@id='alarms']"):
            break
    else:
        pytest.fail("no alarm has the focus")
    active.send_keys("\ue007")
    viewer = browser.find_element("id", "viewer")
    wait_until(viewer.is_displayed)
    wait_until(lambda: natural_width(browser, "viewer-picture") > 64)
    wait_until(
        lambda: (
            browser.execute_script(
                "return document.getElementById('viewer-clip').videoWidth"
            )
            == 64
        )
    )
    browser.switch_to.active_element.send_keys("\ue00c")
    wait_until(lambda: not viewer.is_displayed())
    assert browser.switch_to.active_element == active


def test_a_clip_that_comes_late_is_not_that_of_another_alarm(
    browser, camera, watch_page
):
    _, url = watch_page_with_alarm(camera, watch_page)
    browser.get(url)
    wait_until(lambda: browser.find_elements("css selector", "#alarms button"))
    browser.execute_script(
        """
        window.fetched = fetch;
        window.fetch = async (path, options) => {
          if (path.endsWith("mp4"))
            await new Promise((resolve) => { window.go = resolve; });
          return fetched(path, options);
        };
        """
    )
    browser.find_element("css selector", "#alarms button").click()
    wait_until(lambda: natural_width(browser, "viewer-picture") > 64)
    wait_until(lambda: browser.execute_script("return Boolean(window.go)"))
    browser.execute_script(
        "document.getElementById('viewer').close();"
        "view({ id: 'other', time: 0, score: 1, is_over: false }); go();"
    )
    time.sleep(0.5)
    assert browser.execute_script(
        "return document.getElementById('viewer-clip').hidden"
    )
    assert browser.execute_script(
        "return document.getElementById('viewer-picture').hidden"
    )


def test_a_watch_that_began_again_is_drawn_at_once(
    browser, camera, watch_page, monkeypatch
):
    watch, url = watch_page()
    browser.get(url)
    wait_until(lambda: shown(browser))
    # As after a restart: frames count from 0.
    browser.execute_script("scores = [[5000, Date.now() / 1000, 9, true]];")
    monkeypatch.setattr(watch.live, "_began", 1.0)
    wait_until(
        lambda: browser.execute_script(
            "return scores.length > 1 && scores.every(([n]) => n < 5000)"
        )
    )


def test_the_page_pauses_and_tells_when_the_camera_goes(
    browser, camera, watch_page, quick_retries
):
    watch, url = watch_page()
    browser.get(url)
    wait_until(lambda: shown(browser))
    camera.fault = "stall"
    wait_until(lambda: shown(browser)["state"] == "reconnecting")
    assert shown(browser)["reason"] == "no frame came for 1 s"
    pause = browser.find_element("id", "pause")
    pause.click()
    camera.fault = None
    wait_until(lambda: watch.source.state == "connected")
    # The page would have asked twice meanwhile.
    count = watch.source.num_received + 30
    wait_until(lambda: watch.source.num_received > count)
    assert shown(browser)["state"] == "reconnecting"
    pause.click()
    wait_until(lambda: shown(browser)["state"] == "connected")


def test_the_token_is_asked_for_in_the_page(browser, watch_page):
    _, url = watch_page(token=TOKEN)
    browser.get(url)
    field = browser.find_element("id", "token")
    wait_until(field.is_displayed)
    assert not browser.find_element("id", "now").is_displayed()
    browser.find_element("id", "token").send_keys(f"{TOKEN}\n")
    wait_until(lambda: shown(browser))
    assert not field.is_displayed()
    browser.get_log("browser")


def shown(browser):
    """The texts of the page, once it shows something."""
    found = browser.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('[id]')]"
        ".map((e) => [e.id, e.textContent]))"
    )
    return found if found["state"] and found["flag"] else None


def natural_width(browser, name):
    return browser.execute_script(
        "const e = document.getElementById(arguments[0]);"
        "const image = e.matches('img') ? e : e.querySelector('img');"
        "return image ? image.naturalWidth : 0",
        name,
    )
