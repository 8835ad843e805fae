import numpy as np
import pytest

from keras_sspcab.metrics.diagnosis import chance_limit, describe_failures

COUNTS = {"num_normal_images": 40, "num_defective_images": 60}
GOOD = {"image_auroc": 0.9, "pixel_auroc": 0.97, "aupro": 0.9, **COUNTS}


def test_chance_is_where_scores_that_know_nothing_lie():
    rng = np.random.default_rng(0)
    ranks = rng.random((4000, 42)).argsort(1).argsort(1)
    # The pairs that the last 30 win against the first 12.
    areas = (ranks[:, 12:].sum(1) - 30 * 29 / 2) / (12 * 30)
    share = np.mean(np.abs(areas - 0.5) > chance_limit(12, 30) - 0.5)
    assert share == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"image_auroc": 0.55}, ["The scores do not separate defective"]),
        ({"image_auroc": 0.1}, ["image AUROC 0.10, so that normal ones score"]),
        (
            {"image_auroc": 0.95, "num_normal_images": 2},
            [],
        ),
        (
            {"image_auroc": 1.0, "num_normal_images": 1},
            ["There are too few images to say"],
        ),
        ({"image_auroc": None}, []),
        ({"num_normal_images": 0, "image_auroc": 0.5}, []),
        (
            {"pixel_auroc": 0.45, "aupro": 0.05},
            ["The map does not locate these defects: pixel AUROC 0.45, AUPRO"],
        ),
        ({"aupro": 0.0}, ["does not locate these defects: AUPRO 0.00."]),
        (
            {"per_defect": {"dent": {"aupro": 0.03}, "hole": {"aupro": 0.9}}},
            ["does not locate defects of the kind dent: AUPRO 0.03."],
        ),
        ({"micro_auc": 0.49}, ["do not separate abnormal from normal frames"]),
        ({"micro_auc": 0.8}, []),
    ],
)
def test_failures_are_told_and_nothing_else(changed, expected):
    texts = describe_failures({**GOOD, **changed})
    assert len(texts) == len(expected)
    for text, part in zip(texts, expected, strict=True):
        assert part in text
        assert text.endswith(".")
