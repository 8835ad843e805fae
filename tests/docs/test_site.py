"""The site builds strictly, is complete, and asks nobody else for anything."""

import inspect
import os
import re
import subprocess
import sys
import threading
import zlib

import pytest

from tests.browser import check_page
from tests.docs.pages import ROOT
from tests.test_examples import MODULES, import_here, public_names
from tests.web import serving
from tools import draw_block

pytest.importorskip("mkdocs", reason="needs the extra docs")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site. Links that lead nowhere, pages that the navigation
    misses, and names that are not there are warnings, which are errors.
    """
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    return folder


@pytest.fixture(scope="module")
def address(site):
    with serving(site) as address:
        yield f"{address}/"


def documented(site):
    """The names in the inventory of the reference."""
    content = (site / "objects.inv").read_bytes()
    text = zlib.decompress(content.split(b"zlib.\n", 1)[1]).decode()
    return {line.split()[0] for line in text.splitlines()}


def test_every_public_name_is_in_the_reference(site):
    names = documented(site)
    missing = []
    for module in MODULES:
        package = import_here(module)
        for name, item in public_names(package).items():
            if not (inspect.isclass(item) or inspect.isroutine(item)):
                continue
            home = f"{item.__module__}.{item.__qualname__}"
            if not {f"{module}.{name}", home} & names:
                missing.append(f"{module}.{name}")
    assert not missing


def test_examples_of_the_reference_are_code(site):
    for page in (site / "api").rglob("index.html"):
        text = page.read_text("utf-8")
        assert "<blockquote>\n<blockquote>" not in text, page


@pytest.mark.parametrize(
    "page",
    [
        "",
        "which_model/",
        "concepts/block/",
        "concepts/models/",
        "troubleshooting/",
        "api/metrics/",
        "benchmarks/",
    ],
)
def test_pages_in_a_browser(browser, address, page):
    for _ in check_page(browser, address + page):
        assert browser.find_elements("css selector", "h1")


def test_search_finds(browser, address):
    browser.get(address + "?q=receptive+field")
    for _ in range(100):
        results = browser.find_elements(
            "css selector", ".md-search-result__item"
        )
        if results:
            break
        threading.Event().wait(0.1)
    assert results


def test_drawings_are_those_of_the_script():
    for name, draw in draw_block.DRAWINGS.items():
        assert (draw_block.FOLDER / name).read_text("utf-8") == draw()


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text("utf-8")
    links = re.findall(r"\]\(([^)#]+)", text)
    relative = [link for link in links if "://" not in link]
    assert len(relative) > 20
    assert [link for link in relative if not (ROOT / link).exists()] == []
