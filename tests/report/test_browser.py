"""The pages in a real browser, without a network."""

import numpy as np
import pytest
from PIL import Image

from keras_sspcab.report import page as report_page
from keras_sspcab.report import write_report
from tests.browser import check_page, set_width, style, texts, violations
from tests.report.run_folders import (
    HOSTILE,
    IMAGES,
    VIDEOS,
    write_image_run,
    write_video_run,
)

MORE = {
    f"{number:02d}": ([0, 1, 1, 0], np.linspace(0, 1, 4).tolist())
    for number in range(10)
}


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    write_image_run(folder / "image")
    write_video_run(folder / "video", videos={**VIDEOS, **MORE})
    return {
        kind: write_report(folder / kind).as_uri()
        for kind in ("image", "video")
    }


@pytest.fixture(params=["image", "video"])
def address(request, addresses):
    return addresses[request.param]


@pytest.fixture
def images(page, addresses):
    page.get(addresses["image"])
    return page


@pytest.mark.parametrize(
    ("address", "sections"),
    [
        (
            "image",
            [
                *("Result", "Scores at the threshold", "Over all thresholds"),
                *("By kind of defect", "Gallery", "Training"),
            ],
        ),
        (
            "video",
            [
                *("Result", "Over time", "By video", "Key frames"),
                *("Scores at the threshold", "Over all thresholds", "Training"),
            ],
        ),
    ],
    indirect=["address"],
)
def test_all_sections_are_there(page, sections):
    assert texts(page, "h2") == sections
    for link in page.find_elements("css selector", "nav a"):
        target = link.get_attribute("href").partition("#")[2]
        assert page.find_element("id", target).is_displayed()


def test_the_page_is_accessible_and_asks_no_other_host(browser, address):
    for _ in check_page(browser, address):
        browser.execute_script(
            "document.querySelectorAll('details').forEach(d => d.open = true)"
        )
        browser.find_element("css selector", ".frame").click()
        assert violations(browser) == []
        browser.find_element("id", "close").click()


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


def test_all_pictures_can_be_shown(page):
    broken = page.execute_async_script(
        """
        const images = [...document.images];
        for (const image of images) image.loading = "eager";
        Promise.allSettled(images.map((image) => image.decode())).then(
          (all) => arguments[0](
            all.length < 16 || all.filter((one) => one.reason).map(String)));
        """
    )
    assert broken == []


def test_hostile_names_are_only_text(page):
    # An alert would make the next command fail.
    assert any(HOSTILE in name for name in texts(page, ".card .path"))
    assert not page.find_elements("css selector", "img[src=x]")
    assert len(page.find_elements("css selector", "script")) == 1
    ids = page.execute_script(
        "return [...document.querySelectorAll('[id]')].map(e => e.id)"
    )
    assert len(ids) == len(set(ids)) > 50


def test_slider_and_outlines_work(page):
    maps = page.find_elements("css selector", ".heat")
    assert len(maps) >= 8
    assert style(page, ".heat", "opacity") == "0.75"
    from selenium.webdriver import Keys

    slider = page.find_element("id", "opacity")
    slider.send_keys(Keys.HOME)
    slider.send_keys(Keys.ARROW_RIGHT * 20)
    assert {m.value_of_css_property("opacity") for m in maps} == {"0.2"}
    assert texts(page, "#opacity-value") == ["20 %"]
    for display in ("none", "block"):
        page.find_element("id", "outlines").click()
        assert style(page, ".outline", "display") == display


def test_outline_and_map_lie_on_the_defect(images):
    # The mask covers columns 30 to 50 and rows 10 to 20 of 64 by 48.
    measured = images.execute_script(
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


def choose(page, name, text):
    from selenium.webdriver.support.ui import Select

    Select(page.find_element("id", name)).select_by_visible_text(text)


def scores(page):
    """Those of the cards that are seen, in their order on the page."""
    cards = page.find_elements("css selector", ".card")
    return [
        float(card.get_attribute("data-score"))
        for card in cards
        if card.is_displayed()
    ]


def test_pictures_are_filtered_and_sorted(images):
    grouped = scores(images)
    assert sorted(grouped) == sorted(score for *_, score in IMAGES)
    choose(images, "order", "highest score first")
    assert scores(images) == sorted(grouped, reverse=True)
    assert not images.find_element("css selector", ".group").is_displayed()
    choose(images, "kind", "scratch")
    assert scores(images) == [9.0, 2.9, 1.1]
    choose(images, "order", "lowest score first")
    choose(images, "outcome", "Misses")
    assert scores(images) == [1.1, 2.9]
    assert texts(images, "#count") == ["2 of 8"]
    for name, text in (("outcome", "all"), ("kind", "all")):
        choose(images, name, text)
    choose(images, "order", "by outcome")
    assert scores(images) == grouped


def test_pictures_are_enlarged(images):
    from selenium.webdriver import Keys

    choose(images, "order", "highest score first")
    small = images.find_element("css selector", "#sorted .stack").size
    images.find_element("css selector", "#sorted .frame").click()
    viewer = images.find_element("id", "viewer")
    assert viewer.is_displayed()
    large = viewer.find_element("css selector", ".stack").size
    assert large["width"] > 2 * small["width"]
    ratio = large["width"] / large["height"]
    assert ratio == pytest.approx(64 / 48, abs=0.02)
    assert "9.00" in viewer.text
    images.find_element("id", "next").click()
    assert "6.00" in viewer.text
    viewer.send_keys(Keys.ARROW_LEFT)
    assert "9.00" in viewer.text
    badge = "#viewer .found .badge"
    color = style(images, badge, "color")
    assert color == style(images, ".card.found .badge", "color")
    images.find_element("id", "close").click()
    assert not viewer.is_displayed()


@pytest.mark.parametrize("size", [(20, 160), (48, 64), (400, 40)])
def test_pictures_keep_their_shape(browser, tmp_path, size):
    run = write_image_run(tmp_path / "run")
    for path in (run / "images").rglob("*.png"):
        Image.new("L", size, 99).save(path)
    set_width(browser, 1280)
    browser.get(write_report(run).as_uri())
    stack, frame = (
        browser.find_element("css selector", f".card .{name}").size
        for name in ("stack", "frame")
    )
    ratio = stack["width"] / stack["height"]
    assert ratio == pytest.approx(size[0] / size[1], rel=0.05)
    assert stack["height"] <= frame["height"] + 1
    assert frame["height"] < 1.4 * frame["width"]


LOADED = """
return [...document.images].filter((i) => i.complete && i.naturalWidth).length
"""


def test_pictures_in_a_folder_are_loaded_when_they_come_into_view(
    browser, tmp_path, monkeypatch
):
    from selenium.webdriver.support.ui import WebDriverWait

    monkeypatch.setattr(report_page, "MAX_EMBEDDED", 0)
    many = [(f"{n}/{name}", *more) for n in range(40) for name, *more in IMAGES]
    run = write_image_run(tmp_path / "run #1", images=many, masks=False)
    path = run / "a page?.html"
    set_width(browser, 1366)
    browser.get_log("browser")
    browser.get(write_report(run, path, max_images=len(many)).as_uri())
    total = len(browser.find_elements("css selector", ".card img"))
    assert total == 2 * len(many)
    assert browser.execute_script(LOADED) < 0.1 * total
    last = browser.find_elements("css selector", ".card .photo")[-1]
    browser.execute_script("arguments[0].scrollIntoView()", last)
    wait = WebDriverWait(browser, 20)
    wait.until(lambda _: last.get_property("naturalWidth") == 64)
    assert browser.execute_script(LOADED) < 0.5 * total
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("address", ["video"], indirect=True)
def test_the_first_videos_are_open_and_a_link_opens_the_others(page):
    charts = page.find_elements("css selector", ".timeline")
    are_shown = [chart.is_displayed() for chart in charts]
    assert are_shown == [True] * 12 + [False] * 2
    link = page.find_elements("css selector", ".videos tbody a")[-1]
    page.execute_script("arguments[0].click()", link)
    assert charts[-1].is_displayed()


@pytest.mark.parametrize("address", ["video"], indirect=True)
@pytest.mark.parametrize(("width", "kind"), [(1280, "wide"), (360, "narrow")])
def test_one_of_two_drawings_is_shown(page, width, kind):
    set_width(page, width)
    drawings = page.find_elements("css selector", "#video-1 svg")
    assert [d.is_displayed() for d in drawings] == [
        kind == "wide",
        kind == "narrow",
    ]
