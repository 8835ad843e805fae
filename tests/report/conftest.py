"""Run folders to look at."""

import pytest

from tests.browser import set_width
from tests.report.run_folders import write_image_run, write_video_run


@pytest.fixture
def image_run(tmp_path):
    return write_image_run(tmp_path / "run")


@pytest.fixture
def video_run(tmp_path):
    return write_video_run(tmp_path / "run")


@pytest.fixture
def page(browser, address):
    """A page in the browser; modules say which, by a fixture `address`."""
    set_width(browser, 1280)
    browser.get(address)
    return browser
