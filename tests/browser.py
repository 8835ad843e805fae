"""What tests do with pages in a real browser.

The fixture `browser` is there for every test, which looks at a page in all its
forms:

    from tests.browser import check_page

    def test_page(browser, tmp_path):
        address = write_page(tmp_path).as_uri()
        for _ in check_page(browser, address):
            browser.find_element("id", "more").click()  # states to check, too

`check_page` opens the page at 390 and 1366 pixels, light and dark. Each time it
yields, so that the test can bring the page into the state to be looked at;
then nothing may be wider than the window, axe-core may find no violation of
WCAG 2.1 AA, no request may have gone to another host, and the console must be
empty. `overflow`, `violations` and `requests_of` do one of it alone.
"""

import importlib.util
import json
import shutil
import urllib.parse
from pathlib import Path

import pytest

WIDTHS = (390, 1366)
THEMES = ("light", "dark")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-prefers-reduced-motion",
)
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice")


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium without a window, for all tests of the session."""
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="needs selenium: pip install selenium"
    )
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs Chromium and its chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    profile = tmp_path_factory.mktemp("profile")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    logs = {"browser": "ALL", "performance": "ALL"}
    options.set_capability("goog:loggingPrefs", logs)
    service = webdriver.ChromeService(driver)
    browser = webdriver.Chrome(options=options, service=service)
    yield browser
    browser.quit()


def check_page(browser, address, widths=WIDTHS, themes=THEMES):
    """Checks a page at each width; yields first, to bring it into a state.

    Each width with a theme of its own: what overflows depends on the one, what
    cannot be read on the other.
    """
    host = urllib.parse.urlsplit(address).netloc
    for width, theme in zip(widths, themes, strict=True):
        set_width(browser, width)
        set_theme(browser, theme)
        asked = requests_of(browser, address)
        yield width, theme
        asked += sent_requests(browser)
        hosts = {urllib.parse.urlsplit(url).netloc for url in asked}
        problems = {
            "wider than the window": overflow(browser),
            "violations": violations(browser),
            "console": browser.get_log("browser"),
            "other hosts": sorted(hosts - {host, ""}),
        }
        problems = {what: found for what, found in problems.items() if found}
        where = f"{address} at {width} pixels, {theme}"
        assert not problems, f"{where}: {json.dumps(problems, indent=2)}"
    set_theme(browser, "light")


def set_width(browser, width):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {
            "width": width,
            "height": 900,
            "deviceScaleFactor": 1,
            "mobile": width < 600,
        },
    )


def set_theme(browser, theme):
    features = [
        {"name": "prefers-color-scheme", "value": theme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": features}
    )


def overflow(browser):
    """Returns what is wider than the window, if the page scrolls sideways."""
    return browser.execute_script(
        """
        const width = document.documentElement.clientWidth;
        if (document.documentElement.scrollWidth <= width) return [];
        return [...document.querySelectorAll("body *")]
          .filter((e) => e.getBoundingClientRect().right > width + 1)
          .map((e) => e.outerHTML.slice(0, 120));
        """
    )


def violations(browser, rules=RULES):
    """Returns what axe-core objects to, each with the elements concerned."""
    if not browser.execute_script("return Boolean(window.axe)"):
        browser.execute_script(_axe())
    found = browser.execute_async_script(
        """
        const [rules, done] = arguments;
        axe.run(document, { runOnly: rules, resultTypes: ["violations"] })
          .then((result) => done(result.violations), (e) => done(String(e)));
        """,
        list(rules),
    )
    assert isinstance(found, list), found
    return [
        f"{rule['id']}: {rule['help']}: {node['html'][:160]} "
        f"({node['failureSummary']})"
        for rule in found
        for node in rule["nodes"]
    ]


def _axe():
    # The package would import playwright, of which nothing is needed.
    package = importlib.util.find_spec("axe_playwright_python")
    if package is None:
        pytest.skip("needs axe: pip install --no-deps axe-playwright-python")
    folder = Path(package.submodule_search_locations[0])
    return (folder / "axe.min.js").read_text("utf-8")


def requests_of(browser, address):
    """Opens a page; returns the addresses that it asked for.

    The page before is closed first: what a live one still asks for, and its
    server no longer answers, is not of this page.
    """
    browser.get("about:blank")
    browser.get_log("browser")
    sent_requests(browser)
    browser.get(address)
    return sent_requests(browser)


def sent_requests(browser):
    """Returns the addresses asked for since the last call."""
    messages = [
        json.loads(entry["message"])["message"]
        for entry in browser.get_log("performance")
    ]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def texts(page, selector):
    return [e.text for e in page.find_elements("css selector", selector)]


def style(page, selector, name):
    element = page.find_element("css selector", selector)
    return element.value_of_css_property(name)
