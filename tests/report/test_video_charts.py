from keras_sspcab.report.video_charts import describe, stretches, summarize
from tests.report.video_run_folder import scored_video


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
    assert describe(scored_video([0], [1.0]), None) == (
        "0 of 1 normal frames flagged. Nothing is abnormal. Scores from 1.00 "
        "to 1.00 in frames 4 to 4; no threshold."
    )
