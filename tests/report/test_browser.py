"""The page in a real browser, without a network."""

import pytest

from keras_sspcab.report import write_report
from tests.report.browsing import requests_of, set_width, style, texts
from tests.report.conftest import HOSTILE, HOSTILE_DEFECT, write_run


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("browser") / "run")
    return write_report(folder).as_uri()


def test_all_sections_are_there(page):
    assert texts(page, "h2") == [
        "Result",
        "Scores at the threshold",
        "Over all thresholds",
        "By kind of defect",
        "Gallery",
        "Training",
    ]
    assert texts(page, "figure.chart h3") == [
        "Scores",
        "ROC",
        "Precision and recall",
        "Per-region overlap (PRO)",
        "Loss",
        "SSPCAB loss",
    ]
    for link in page.find_elements("css selector", "nav a"):
        target = link.get_attribute("href").partition("#")[2]
        assert page.find_element("id", target).is_displayed()


def test_confusion_counts(page):
    assert texts(page, ".confusion td b") == ["2", "2", "2", "2"]
    assert texts(page, ".tile .value")[:2] == ["2 of 4", "2 of 4"]


def test_worst_misses_come_first(page):
    names = texts(page, ".card .path")
    assert names == [
        "scratch/002.png",
        "scratch/001.png",
        "good/001.png",
        "good/003.png",
        HOSTILE,
        "scratch/000.png",
        "good/000.png",
        "good/002.png",
    ]
    assert texts(page, ".group h3") == [
        "Misses 2",
        "False alarms 2",
        "Found defects 2",
        "Passed normal images 2",
    ]


def test_slider_sets_the_opacity_of_all_maps(page):
    maps = page.find_elements("css selector", ".heat")
    assert len(maps) == 8
    assert style(page, ".heat", "opacity") == "0.75"
    from selenium.webdriver import Keys

    slider = page.find_element("id", "opacity")
    slider.send_keys(Keys.HOME)
    assert {m.value_of_css_property("opacity") for m in maps} == {"0"}
    slider.send_keys(Keys.ARROW_RIGHT * 20)
    assert {m.value_of_css_property("opacity") for m in maps} == {"0.2"}
    assert texts(page, "#opacity-value") == ["20 %"]


def test_outlines_can_be_turned_off(page):
    assert len(page.find_elements("css selector", ".outline")) == 4
    assert style(page, ".outline", "display") == "block"
    page.find_element("id", "outlines").click()
    assert style(page, ".outline", "display") == "none"
    page.find_element("id", "outlines").click()
    assert style(page, ".outline", "display") == "block"


def test_outline_and_map_lie_on_the_defect(page):
    # The mask covers columns 30 to 50 and rows 10 to 20 of 64 by 48.
    measured = page.execute_script(
        """
        const card = document.querySelector(".found .stack");
        const box = card.getBoundingClientRect();
        const path = card.querySelector(".outline path");
        const [a, b] = [path.getBBox(), path.getScreenCTM()];
        const heat = card.querySelector(".heat").getBoundingClientRect();
        return [
          (a.x * b.a + b.e - box.left) / box.width,
          ((a.x + a.width) * b.a + b.e - box.left) / box.width,
          (a.y * b.d + b.f - box.top) / box.height,
          ((a.y + a.height) * b.d + b.f - box.top) / box.height,
          heat.width / box.width, heat.height / box.height,
          box.width / box.height,
        ];
        """
    )
    expected = [30 / 64, 50 / 64, 10 / 48, 20 / 48, 1, 1, 64 / 48]
    assert measured == pytest.approx(expected, abs=0.01)


def test_images_are_loaded(page):
    widths = page.execute_script(
        "return [...document.images].map(i => i.decode && i.naturalWidth)"
    )
    assert len(widths) == 16
    assert all(widths)


def test_no_request_leaves_the_page_and_nothing_fails(browser, address):
    browser.get_log("browser")
    urls = requests_of(browser, address)
    assert browser.get_log("browser") == []
    assert any(url.startswith("file:") for url in urls)
    assert not [u for u in urls if not u.startswith(("file:", "data:"))]


def test_hostile_names_are_only_text(page):
    # An alert would make the next command fail.
    assert HOSTILE in texts(page, ".card .path")
    assert HOSTILE_DEFECT in texts(page, "#defects tbody th")
    assert not page.find_elements("css selector", "img[src=x]")
    assert len(page.find_elements("css selector", "script")) == 1


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_window(page, width):
    set_width(page, width)
    inner, scroll = page.execute_script(
        "return [innerWidth, document.documentElement.scrollWidth]"
    )
    assert scroll <= inner == width


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_charts_follow_the_theme(page, theme):
    features = [{"name": "prefers-color-scheme", "value": theme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    text = style(page, ".chart svg text", "fill")
    background = style(page, "body", "background-color")
    brightness = [
        sum(map(int, color.split("(")[1].strip(")").split(",")[:3]))
        for color in (text, background)
    ]
    assert (brightness[0] > brightness[1]) == (theme == "dark")


def test_every_picture_has_a_text(page):
    missing = page.execute_script(
        """
        return [...document.querySelectorAll("img, [role=img], input")]
          .filter(e => !(e.alt || e.ariaLabel || e.labels?.length))
          .map(e => e.outerHTML.slice(0, 80));
        """
    )
    assert missing == []


def test_identifiers_are_unique(page):
    ids = page.execute_script(
        "return [...document.querySelectorAll('[id]')].map(e => e.id)"
    )
    assert len(ids) == len(set(ids)) > 50


def test_page_without_labels_and_maps(browser, tmp_path):
    folder = write_run(tmp_path / "run", label=False, maps=False, masks=False)
    browser.get_log("browser")
    browser.get(write_report(folder).as_uri())
    assert texts(browser, ".card .row b")[1::2] == [
        "9.00",
        "6.00",
        "4.50",
        "3.50",
        "2.90",
        "1.10",
        "0.20",
        "\u22120.70",
    ]
    assert not browser.find_elements("css selector", ".toolbar")
    assert browser.get_log("browser") == []
