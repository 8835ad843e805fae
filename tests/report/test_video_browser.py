"""The page about videos in a real browser, without a network."""

import numpy as np
import pytest

from keras_sspcab.report import write_report
from tests.report.browsing import requests_of, set_width, style, texts
from tests.report.video_run_folder import HOSTILE, VIDEOS, write_video_run

MORE = {
    f"{number:02d}": ([0, 1, 1, 0], np.linspace(0, 1, 4).tolist())
    for number in range(10)
}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("video") / "run"
    write_video_run(folder, videos={**VIDEOS, **MORE})
    return write_report(folder).as_uri()


def test_all_sections_are_there(page):
    assert texts(page, "h2") == [
        "Result",
        "Over time",
        "By video",
        "Key frames",
        "Scores at the threshold",
        "Over all thresholds",
        "Training",
    ]
    for link in page.find_elements("css selector", "nav a"):
        target = link.get_attribute("href").partition("#")[2]
        assert page.find_element("id", target).is_displayed()


def test_no_request_leaves_the_page_and_nothing_fails(browser, address):
    browser.get_log("browser")
    urls = requests_of(browser, address)
    assert browser.get_log("browser") == []
    assert any(url.startswith("file:") for url in urls)
    assert not [u for u in urls if not u.startswith(("file:", "data:"))]


def test_the_first_videos_are_open_and_a_link_opens_the_others(page):
    charts = page.find_elements("css selector", ".timeline")
    assert len(charts) == 14
    assert [chart.is_displayed() for chart in charts] == [True] * 12 + [
        False
    ] * 2
    link = page.find_elements("css selector", ".videos tbody a")[-1]
    page.execute_script("arguments[0].click()", link)
    assert charts[-1].is_displayed()


@pytest.mark.parametrize(("width", "kind"), [(1280, "wide"), (360, "narrow")])
def test_one_of_two_drawings_is_shown(page, width, kind):
    set_width(page, width)
    drawings = page.find_elements("css selector", "#video-1 svg")
    assert [d.is_displayed() for d in drawings] == [
        kind == "wide",
        kind == "narrow",
    ]


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_window(page, width):
    set_width(page, width)
    page.execute_script(
        "document.querySelectorAll('details').forEach(d => d.open = true)"
    )
    inner, scroll = page.execute_script(
        "return [innerWidth, document.documentElement.scrollWidth]"
    )
    assert scroll <= inner == width


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_timelines_follow_the_theme(page, theme):
    features = [{"name": "prefers-color-scheme", "value": theme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    colors = [
        style(page, selector, name)
        for selector, name in (
            (".timeline svg text", "fill"),
            (".key .score-line", "stroke"),
            ("body", "background-color"),
        )
    ]
    text, line, background = (
        sum(map(int, color.split("(")[1].strip(")").split(",")[:3]))
        for color in colors
    )
    assert (text > background) == (line > background) == (theme == "dark")


def test_slider_and_outlines_work(page):
    maps = page.find_elements("css selector", ".heat")
    assert len(maps) == 28
    page.execute_script(
        "const e = document.getElementById('opacity'); e.value = 20;"
        "e.dispatchEvent(new Event('input'))"
    )
    assert {m.value_of_css_property("opacity") for m in maps} == {"0.2"}
    assert style(page, ".outline", "display") == "block"
    page.find_element("id", "outlines").click()
    assert style(page, ".outline", "display") == "none"


def test_pictures_have_texts_and_are_loaded(page):
    missing, widths = page.execute_script(
        """
        const missing = [
          ...document.querySelectorAll("img, [role=img], input")
        ].filter(e => !(e.alt || e.ariaLabel || e.labels?.length));
        return [missing.map(e => e.outerHTML.slice(0, 80)),
                [...document.images].map(i => i.naturalWidth)];
        """
    )
    assert missing == []
    assert all(widths)


def test_hostile_names_are_only_text(page):
    assert HOSTILE in texts(page, ".videos tbody th")
    assert not page.find_elements("css selector", "img[src=x]")
    assert len(page.find_elements("css selector", "script")) == 1
