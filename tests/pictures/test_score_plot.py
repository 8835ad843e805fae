import numpy as np
import pytest
from PIL import Image

from keras_sspcab.pictures.video import save_score_plot


def test_everything_is_drawn(tmp_path):
    path = tmp_path / "plot.svg"
    picture = np.zeros((8, 8, 3), "uint8")
    save_score_plot(
        str(path),
        [4, 5, 6, 7],
        [0.0, 3.0, 1.0, 2.5],
        threshold=2.0,
        pictures={5: picture, 7: picture},
        seconds=[0.0, 0.04, 1.5, 1.54],
        title="a video",
    )
    svg = path.read_text("utf-8")
    for text in (
        "a video",
        "frame 5",
        "frame 7",
        "seconds",
        "threshold",
    ):
        assert f"<!-- {text} -->" in svg
    assert svg.count("<image") == 2


def test_red_marks_scores_at_the_threshold(tmp_path):
    def reds(threshold):
        path = tmp_path / "plot.png"
        save_score_plot(str(path), range(9), np.arange(9.0), threshold)
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        return ((pixels[..., 0] - pixels[..., 2]) > 120).sum()

    # Its line in the legend is always there.
    assert reds(4.0) > 2 * reds(100.0)


def test_bad_series_are_refused(tmp_path):
    path = tmp_path / "plot.png"
    for frames, scores in (([], []), ([1, 2], [0.5])):
        with pytest.raises(ValueError, match="one score a frame"):
            save_score_plot(str(path), frames, scores)
    assert not path.exists()
