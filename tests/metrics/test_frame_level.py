from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_sspcab.metrics import macro_auc, micro_auc, normalize_per_video
from tests.metrics.oracles import pair_counting_auroc, sentinel_auroc


@st.composite
def videos(draw):
    # Few distinct values: many ties, also with the sentinels' 0 and 1.
    score = st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1, width=32)
    frames = st.lists(
        st.tuples(st.integers(0, 1), score), min_size=1, max_size=9
    )
    names = draw(st.lists(st.text(max_size=3), min_size=1, max_size=4))
    pairs = {name: draw(frames) for name in names}
    labels = {name: [t for t, _ in p] for name, p in pairs.items()}
    scores = {name: [s for _, s in p] for name, p in pairs.items()}
    return scores, labels


def has_both(labels):
    return 0 < sum(labels) < len(labels)


@given(videos())
def test_micro_is_the_auroc_of_all_frames(case):
    scores, labels = case
    every_label = list(chain(*labels.values()))
    if not has_both(every_label):
        with pytest.raises(ValueError, match="anomalous frames"):
            micro_auc(scores, labels)
        return
    result = micro_auc(scores, labels)
    assert result.value == pytest.approx(
        pair_counting_auroc(every_label, list(chain(*scores.values()))),
        abs=1e-12,
    )
    assert result.per_video == {
        name: pytest.approx(
            pair_counting_auroc(labels[name], scores[name]), abs=1e-12
        )
        if has_both(labels[name])
        else None
        for name in scores
    }


@given(videos())
def test_macro_with_sentinels_is_the_mean_of_all_videos(case):
    scores, labels = case
    expected = {n: sentinel_auroc(labels[n], scores[n]) for n in scores}
    result = macro_auc(scores, labels)
    assert result.per_video == pytest.approx(expected, abs=1e-12)
    mean = sum(expected.values()) / len(expected)
    assert result.value == pytest.approx(mean, abs=1e-12)


@given(videos())
def test_macro_skips_videos_of_one_class(case):
    scores, labels = case
    kept = [name for name in scores if has_both(labels[name])]
    if not kept:
        with pytest.raises(ValueError, match="No video has both"):
            macro_auc(scores, labels, single_class="skip")
        return
    result = macro_auc(scores, labels, single_class="skip")
    values = [pair_counting_auroc(labels[n], scores[n]) for n in kept]
    assert result.value == pytest.approx(np.mean(values), abs=1e-12)
    assert {n for n, v in result.per_video.items() if v is not None} == set(
        kept
    )
    assert set(result.single_class) == set(scores) - set(kept)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ({"x": [0, 1], "y": [0.0]}, {"x": [0, 1]}, "'y' has no labels"),
        ({"x": [0, 1]}, {"x": [0, 1], "z": [1]}, "'z' has no scores"),
        ([[0, 1], [0, 1]], [[0, 1], [0]], "2 scores and 1 labels for video 1"),
        (
            {"x": [0, np.nan]},
            {"x": [0, 1]},
            r"scores_by_video\['x'\] with 1 of",
        ),
        (
            {"x": [0, 1]},
            {"x": [0, 2]},
            r"labels_by_video\['x'\] with the value 2",
        ),
        ({"x": []}, {"x": []}, r"\['x'\] of shape \(0,\)"),
        ({"x": [[0, 1]]}, {"x": [[0, 1]]}, r"shape \(1, 2\)"),
        ([0.0, 1.0], [0, 1], r"list of arrays"),
        ({}, {}, "at least one video"),
    ],
)
def test_bad_arguments_name_the_video(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        micro_auc(scores, labels)


@pytest.mark.parametrize("bad", [-0.1, 1.1])
def test_sentinels_need_scores_between_them(bad):
    scores, labels = {"x": [0, 1], "y": [0.5, bad]}, {"x": [0, 1], "y": [0, 1]}
    with pytest.raises(ValueError, match="in video 'y'"):
        macro_auc(scores, labels)
    macro_auc(normalize_per_video(scores), labels)
    macro_auc(scores, labels, single_class="skip")


def test_micro_and_macro_differ_by_hand():
    # Each video is ordered well, but the second one lies above the first.
    scores = [[0.1, 0.2], [0.3, 0.4]]
    labels = [[0, 1], [0, 1]]
    assert micro_auc(scores, labels).value == pytest.approx(0.75)
    assert macro_auc(scores, labels, single_class="skip").value == 1.0
    normalized = normalize_per_video(scores)
    assert micro_auc(normalized, labels).value == 1.0
    with pytest.raises(ValueError, match="single_class='drop'"):
        macro_auc(scores, labels, single_class="drop")
