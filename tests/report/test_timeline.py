import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_sspcab.report.content import VideoScores
from keras_sspcab.report.timeline import (
    draw,
    stretches,
    summarize,
    thin_extremes,
    timeline_chart,
)
from keras_sspcab.runs.outputs import FrameScore, KeyFrame
from tests.report.run_folders import texts


def scored_video(labels, scores, threshold=3.0):
    """A video whose first scored frame is number 4."""
    frames = [
        FrameScore("v", 4 + i, label, score, score >= threshold, None, score)
        for i, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]
    return VideoScores("v", None, None, frames)


def timeline(scores, threshold=3.0, truth=(), marks=()):
    labels = [
        int(any(first <= frame <= last for first, last in truth))
        for frame in range(4, 4 + len(scores))
    ]
    video = scored_video(labels, scores, threshold or 0.0)
    return draw("t", video, threshold, marks, (6, 2))


def mark(frame, score, is_right):
    label = {True: 1, False: 0, None: None}[is_right]
    return KeyFrame("v", frame, label, score, True, "", None, None)


def numbers(path):
    return np.array(re.findall(r"[-\d.]+", path), "float64").reshape(-1, 2)


def shapes(svg, style):
    return [
        numbers(e.get("d"))
        for e in ET.fromstring(svg).iter("path")
        if style in (e.get("style") or "")
    ]


def box(svg):
    """Left, right, top and bottom of the axes, from their frame."""
    (frame,) = (
        numbers(rect)
        for rect in re.findall(r'id="t-patch_2".*?d="([^"]*)"', svg, re.DOTALL)
    )
    return *frame.min(0), *frame.max(0)


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=400),
    st.integers(4, 40),
)
def test_thinning_keeps_the_extremes(scores, max_points):
    x, y = np.arange(len(scores)), np.array(scores)
    thin = thin_extremes(x, y, max_points)
    assert len(thin.x) <= max(max_points, 1)
    assert np.all(np.diff(thin.x) > 0)
    assert (thin.x[0], thin.x[-1]) == (x[0], x[-1])
    assert (thin.y.min(), thin.y.max()) == (y.min(), y.max())
    assert np.array_equal(thin.y, y[thin.x])
    if len(scores) <= max_points:
        assert np.array_equal(thin.x, x)


def test_the_truth_is_shaded_in_its_place():
    # 101 frames from 4 on; each is a 101st of the width.
    svg = timeline(np.zeros(101), truth=[(14, 23), (104, 104)])
    left, top, right, bottom = box(svg)
    spans = [
        path
        for path in shapes(svg, "fill: var(--anomalous)")
        if np.ptp(path[:, 1]) > 20
    ]
    measured = [
        (np.array([path[:, 0].min(), path[:, 0].max()]) - left) / (right - left)
        for path in spans
    ]
    expected = [[10 / 101, 20 / 101], [100 / 101, 1]]
    assert measured == pytest.approx(np.array(expected), abs=1e-3)
    assert np.ptp(spans[0][:, 1]) == pytest.approx(bottom - top, abs=0.2)


def test_the_threshold_lies_among_the_scores():
    svg = timeline([0.0, 4.0, 2.0], threshold=3.0)
    (line,) = (
        path for path in shapes(svg, "stroke: var(--ink)") if len(path) == 2
    )
    (curve,) = shapes(svg, "stroke: var(--accent)")
    height = (line[0, 1] - curve[0, 1]) / (curve[1, 1] - curve[0, 1])
    assert line[0, 1] == line[1, 1]
    assert height == pytest.approx(3 / 4, abs=0.01)
    no_line = timeline([0.0, 4.0, 2.0], threshold=None)
    assert not [p for p in shapes(no_line, "var(--ink)") if len(p) == 2]


def test_marks_are_colored_by_their_verdict():
    def colors(*verdicts):
        marks = [mark(5, 1.0, verdict) for verdict in verdicts]
        svg = timeline(np.zeros(10), threshold=None, marks=marks)
        uses = re.findall(r"<use [^>]*style=\"fill: var\((--\w+)", svg)
        return [name for name in uses if name not in ("--rule", "--muted")]

    assert colors(True, False, None) == ["--normal", "--anomalous", "--ink"]
    assert colors() == []


def test_an_outlier_leaves_the_rest_visible():
    scores = np.append(np.random.default_rng(0).normal(size=300), [5e3, -800])
    svg = timeline(scores)
    (curve,) = shapes(svg, "stroke: var(--accent)")
    _, top, _, bottom = box(svg)
    assert np.ptp(curve[:300, 1]) > 0.05 * (bottom - top)
    ticks = [t for t in texts(svg) if re.fullmatch(r"\D?\d+", t)]
    assert {"0", "10", "\u2212100"} <= set(ticks)


@pytest.mark.parametrize(
    ("scores", "threshold"),
    [
        ([1.0], None),
        ([0.0, 0.0], 0.0),
        ([2.0, 2.0], 2.0),
        ([-1e4, 1e-3], 1e-3),
        ([1e-9, 1e6], None),
    ],
    ids=["one", "zero", "equal", "negative", "far"],
)
def test_any_scores_can_be_drawn(scores, threshold):
    svg = timeline(scores, threshold)
    assert "frame" in texts(svg)
    assert "nan" not in svg


def test_stretches_in_words():
    assert stretches([(3, 3)]) == "frame 3"
    assert stretches([(3, 5)]) == "frames 3 to 5"
    assert stretches([(1, 1), (3, 5), (8, 9)]) == "frames 1, 3 to 5 and 8 to 9"
    many = [(10 * i, 10 * i + i) for i in range(9)]
    assert stretches(many) == (
        "9 times, longest in frames 30 to 33, 40 to 44, 50 to 55, 60 to 66, "
        "70 to 77 and 80 to 88"
    )


def test_videos_without_labels_in_words():
    text = summarize(scored_video([None, None], [4.0, 1.0]), 3.0)
    assert text == "1 of 2 frames without a label flagged. Flagged: frame 4."
    chart = timeline_chart("v", scored_video([0], [1.0]), None)
    assert chart.description == (
        "0 of 1 normal frames flagged. Nothing is abnormal. Scores from 1.00 "
        "to 1.00 in frames 4 to 4; no threshold."
    )


def test_intervals_are_consecutive_rows():
    video = scored_video([1, 0, 1, 1, None, 1, 0, 1], [0.0] * 8)
    assert video.abnormal_intervals == [(4, 4), (6, 7), (9, 9), (11, 11)]
    assert video.flagged_intervals == []
