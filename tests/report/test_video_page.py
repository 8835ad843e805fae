import html
import json
import os
import re

import numpy as np
import pytest

from keras_sspcab.metrics import (
    average_precision,
    macro_auc,
    micro_auc,
    normalize_per_video,
)
from keras_sspcab.report import write_report
from tests.report.run_folders import (
    HOSTILE,
    VIDEOS,
    change_metrics,
    page_of,
    write_video_run,
)

DASH = "\u2013"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return page_of(write_video_run(tmp_path_factory.mktemp("page") / "run"))


def text_of(page):
    """The words of a page, without markup, scripts and drawings."""
    page = re.sub(r"<(style|script|svg).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def rows_of(page):
    (table,) = re.findall(r'<table class="kinds videos".*?</table>', page, re.S)
    rows = re.findall(r"<tr>.*?</tr>", table, re.S)
    cells = [re.findall(r"<t[dh].*?</t[dh]>", row, re.S) for row in rows]
    return [" | ".join(map(text_of, row)) for row in cells]


def test_the_page_says_what_was_run_and_measured(video_run):
    path = write_report(video_run)
    assert path == video_run / "report.html"
    text = text_of(path.read_text("utf-8"))
    for fact in (
        "crossing",
        "future_frame",
        "24 \u00d7 32 px, RGB",
        "Clip 3 frames",
        "Scored test videos",
        "2025-03-04 05:06",
        "RBDC 0.123",
        "TBDC 0.456",
        "Regions Anomaly maps cut at 4 levels.",
        "Tracks of the ground truth Derived from the ground-truth masks.",
        "Frames without a score 2 at the beginning of each video.",
        "Smoothing over time Median over 17 frames.",
        "Macro AUC leaves them out",
        # Of 9 abnormal and 19 normal frames at the threshold of 3:
        "4 of 9 abnormal frames found 5 missed",
        "3 of 19 normal frames flagged 15.8 % false alarms",
        "3.00 threshold",
        "1 of 4 videos has no AUC of its own",
    ):
        assert fact in text, fact


def test_areas_are_those_of_the_scores(page):
    labels = {name: truth for name, (truth, _) in VIDEOS.items()}
    scores = {name: values for name, (_, values) in VIDEOS.items()}
    text = text_of(page)
    streaming = micro_auc(scores, labels).value
    assert f"Streaming micro AUC {streaming:.3f}" in text
    macro = macro_auc(scores, labels, single_class="skip").value
    assert f"Macro AUC {macro:.3f}" in text
    assert f"streaming {streaming:.3f}. The dotted line" in text
    truth = np.concatenate(list(labels.values()))
    whole, live = (
        average_precision(truth, np.concatenate(list(values.values())))
        for values in (normalize_per_video(scores), scores)
    )
    assert f"{whole:.3f}" != f"{live:.3f}"
    assert f"precision: whole video {whole:.3f}, streaming {live:.3f}." in text


def test_the_worst_video_comes_first(page):
    titles = re.findall(
        r'<figure class="chart wide timeline".*?<h3>(.*?)<', page, re.DOTALL
    )
    titles = [html.unescape(title).strip() for title in titles]
    assert titles == ["run", HOSTILE, "walk", "quiet"]
    assert rows_of(page) == [
        "Video | AUC | Found | Share found | False alarms | Abnormal | Frames",
        "run | 0.400 | 1 33.3 % |  | 2 40.0 % | 3 | 10",
        f"{HOSTILE} | 0.750 | 0 0.0 % |  | 0 0.0 % | 2 | 6",
        "walk | 1.000 | 3 75.0 % |  | 0 0.0 % | 4 | 12",
        f"quiet | {DASH} | {DASH} |  | 1 16.7 % | 0 | 8",
    ]


def test_timelines_are_told_in_words(page):
    labels = re.findall(r'aria-label="Scores of (.*?)"', page)
    assert labels[2] == (
        "walk over time. 3 of 4 abnormal frames found, 0 of 6 normal frames "
        "flagged. Abnormal: frames 5 to 8. Flagged: frames 5 to 6 and 8. "
        "Scores from -0.30 to 6.00 in frames 2 to 11; threshold 3.00. Key "
        "frames: 4 and 8."
    )
    assert labels[3].startswith(
        "quiet over time. 1 of 6 normal frames flagged. Nothing is abnormal. "
        "Flagged: frame 4."
    )


def test_the_gallery_groups_key_frames(page):
    groups = re.findall(r'<section class="group ([\w-]+)"', page)
    assert groups == ["missed", "false-alarm", "found", "passed"]
    cards = [
        text_of(card)
        for card in re.findall(
            r"<figcaption>\s*<span.*?</figcaption>", page, re.DOTALL
        )
    ]
    assert cards == [
        "Missed score 0.20 < threshold 3.00 run, frame 7",
        f"Missed score 2.00 < threshold 3.00 {HOSTILE}, frame 5",
        "False alarm score 4.50 ≥ threshold 3.00 run, frame 5",
        "False alarm score 3.50 ≥ threshold 3.00 quiet, frame 4",
        "Found score 6.00 ≥ threshold 3.00 walk, frame 8",
        f"Passed score 0.00 < threshold 3.00 {HOSTILE}, frame 2",
        "Passed score \u22120.30 < threshold 3.00 walk, frame 4",
        "Passed score \u22120.40 < threshold 3.00 quiet, frame 7",
    ]
    assert page.count('class="heat"') == page.count('class="photo"') == 8
    assert page.count('class="outline"') == 3
    assert "8 of 8 frames" in page


def test_without_labels(tmp_path):
    page = page_of(write_video_run(tmp_path / "run", label=False))
    text = text_of(page)
    assert "Here no frame has a label, so they are not defined." in text
    assert "7 of 28 frames without a label flagged" in text
    assert "Normalization" not in text
    assert 'id="curves"' not in page
    assert "Ground truth outline" not in text
    assert "abnormal (ground truth)" not in text
    assert "key frame without a label" in text
    assert page.index("Flagged frames") < page.index("Other frames")
    # The share of flagged frames: 3 of 8, 3 of 10, 1 of 6, none of 4.
    assert [row.split(" | ")[0] for row in rows_of(page)] == [
        *("Video", "run", "walk", "quiet", HOSTILE)
    ]
    assert rows_of(page)[0] == "Video | Flagged without a label | Frames"


def test_labels_of_some_videos_only(video_run):
    path = video_run / "predictions/scores.csv"
    content = path.read_text("utf-8")
    path.write_text(re.sub(r"(?m)^(quiet,\d+),0,", r"\1,,", content))
    os.remove(video_run / "predictions/key_frames.csv")
    page = page_of(video_run)
    first, *_, last = rows_of(page)
    assert first.endswith("Flagged without a label | Abnormal | Frames")
    assert last == (
        f"quiet | {DASH} | {DASH} |  | {DASH} | 1 16.7 % | {DASH} | 8"
    )
    assert "1 of 6 frames without a label flagged" in text_of(page)


@pytest.mark.parametrize(
    ("truth", "problem"),
    [(0, "no frame is labeled abnormal"), (1, "no frame is labeled normal")],
)
def test_frames_of_one_class(tmp_path, truth, problem):
    videos = {"a": ([truth] * 4, [0.0, 1.0, 4.0, 2.0])}
    page = page_of(write_video_run(tmp_path / "run", videos=videos))
    text = text_of(page)
    assert f"Here {problem}" in text
    assert "micro AUC" not in text
    assert 'id="curves"' not in page


def test_without_key_frames(tmp_path):
    folder = write_video_run(tmp_path / "run")
    (folder / "predictions/key_frames.csv").unlink()
    page = page_of(folder)
    assert "There is no predictions/key_frames.csv" in text_of(page)
    assert f"keras-sspcab evaluate {folder}" in page
    assert 'id="opacity"' not in page
    assert "key frame, right" not in page
    assert page.count('class="chart wide timeline"') == 4


def test_without_maps_and_masks(tmp_path):
    page = page_of(write_video_run(tmp_path / "run", maps=False))
    assert "have no anomaly maps" in page
    assert 'id="opacity"' not in page
    assert 'id="outlines"' in page
    page = page_of(write_video_run(tmp_path / "run", masks=False))
    assert "have no ground-truth masks" in page
    assert 'id="outlines"' not in page
    assert 'id="opacity"' in page


def test_without_calibration(tmp_path):
    page = page_of(write_video_run(tmp_path / "run", calibrated=False))
    assert "not calibrated: nothing is flagged" in text_of(page)
    assert "largest value of all maps" in page
    assert "no threshold. Key frames" in page
    assert "threshold-line" not in page.split("</style>")[1]


def test_a_video_shorter_than_a_clip(video_run):
    metrics = json.loads((video_run / "metrics.json").read_text("utf-8"))
    short = {"short": {"num_frames": 2, "num_scored_frames": 0}}
    change_metrics(video_run, per_video=metrics["per_video"] | short)
    page = page_of(video_run)
    assert "1 of 5 videos is shorter than a clip" in text_of(page)
    dashes = f"{DASH} | {DASH} |  | {DASH} | {DASH}"
    assert rows_of(page)[-1] == f"short | {dashes} | 2"
    assert page.count('class="chart wide timeline"') == 4
