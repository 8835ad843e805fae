"""All that a page tells its readers to type runs, in the order of the page."""

import inspect
import re
import shutil
from unittest import mock

import pytest

from keras_sspcab.applications import MultiScalePaDiM
from tests.docs.pages import DOCS, ROOT, Reader, blocks

INDEX = DOCS / "index.md"

#: Pages that a test of their own runs.
TESTED_ELSEWHERE = {
    "how_to/add_a_host.md": "tests/applications/test_adding_a_host.py",
}

#: How many blocks of commands of a page are not run: they need containers,
#: data, time or machines that are not here.
NOT_RUN = {
    "concepts/metrics.md": 1,
    "how_to/compare.md": 2,
    "how_to/download_data.md": 1,
    "how_to/feedback.md": 2,
    "how_to/published_checkpoints.md": 1,
    "how_to/reproduce.md": 1,
    "how_to/scale_out.md": 1,
    "how_to/serve.md": 1,
    "how_to/track_runs.md": 1,
    "scaling.md": 3,
}

RUN = ("python", "sh")
SHOWN = ("cpp", "html", "js", "json", "py", "text", "toml", "yaml")

PAGES = {path.relative_to(DOCS).as_posix(): path for path in DOCS.rglob("*.md")}
PAGES["README.md"] = ROOT / "README.md"


@pytest.fixture(autouse=True)
def _few_features():
    """The default detector with fewer features: its five fits take long."""
    init, few = MultiScalePaDiM.__init__, {"num_features": 8, "rank": 4}
    names = [*inspect.signature(init).parameters][1:]
    values = tuple(
        few.get(name, value)
        for name, value in zip(names, init.__defaults__, strict=True)
    )
    with mock.patch.object(init, "__defaults__", values):
        yield


# So few images are enough to run the pages, not for a good threshold.
@pytest.mark.filterwarnings("ignore:The threshold is")
@pytest.mark.filterwarnings("ignore:.*too few")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if path == INDEX else pytest.mark.slow)
        for name, path in sorted(PAGES.items())
        if name not in TESTED_ELSEWHERE
        and any(language in RUN for language, _ in blocks(path))
    ],
)
def test_what_is_to_be_typed_runs(name, data, runs, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    shutil.copytree(data, folder)
    page = PAGES[name]
    text = page.read_text("utf-8")
    for run in ("screws", "avenue"):
        made = rf'(--run |create\(")runs/{run}\b(?! --resume)'
        is_made = re.search(made, text)
        if f"runs/{run}" in text and not is_made:
            shutil.copytree(runs(run), folder / "runs" / run)
    monkeypatch.chdir(folder)
    known = [] if page == INDEX else blocks(INDEX)
    reader = Reader(folder)
    try:
        for language, block in blocks(page):
            # The first page is tested itself.
            if (language, block) not in known:
                reader.read(language, block)
    finally:
        reader.close()


def test_five_commands_lead_to_a_served_detector():
    """They are the first block of the first page; the test above runs it."""
    language, block = blocks(INDEX)[0]
    assert language == "sh"
    starts = re.findall(r"^(pip|keras-sspcab \w+|python)\b", block, re.M)
    assert starts == [
        "pip",
        "keras-sspcab train",
        "keras-sspcab evaluate",
        "keras-sspcab serve",
        "python",
    ]
    assert (language, block) in blocks(ROOT / "README.md")


@pytest.mark.parametrize("name", PAGES)
def test_what_is_not_run_is_known(name):
    languages = [language for language, _ in blocks(PAGES[name])]
    assert {*languages} <= {*RUN, *SHOWN, "console"}
    assert languages.count("console") == NOT_RUN.get(name, 0)


def test_names_of_pages_are_those_of_pages():
    assert {*TESTED_ELSEWHERE, *NOT_RUN} <= PAGES.keys()
