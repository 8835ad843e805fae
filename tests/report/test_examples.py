import numpy as np
import pytest
from PIL import Image

from keras_sspcab.report import save_examples_figure
from keras_sspcab.report.examples import choose_images
from keras_sspcab.runs.outputs import ImageScore
from tests.report.run_folders import write_image_run


def test_picture_shows_defects_in_color(image_run, tmp_path):
    path = save_examples_figure(image_run, tmp_path / "a.png", count=2)
    assert path == tmp_path / "a.png"
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    height, width, _ = pixels.shape
    is_red = (pixels[..., 0] > pixels[..., 2] + 60).nonzero()
    # The heat maps are in the middle row; the scale is at the right.
    inside = is_red[1] < 0.8 * width
    assert inside.sum() > 100
    rows = is_red[0][inside] / height
    assert rows.min() > 0.33
    assert rows.max() < 0.67


def test_all_kinds_are_shown_by_their_median():
    def kind(name, scores):
        return [ImageScore("", 1, name, s, True) for s in scores]

    predictions = kind("b", [5.0, 1.0, 3.0]) + kind("a", [2.0])
    chosen = [(p.defect, p.score) for p in choose_images(predictions, 2)]
    assert chosen == [("a", 2.0), ("b", 3.0)]
    chosen = [(p.defect, p.score) for p in choose_images(predictions, 3)]
    assert chosen == [("a", 2.0), ("b", 3.0), ("b", 1.0)]
    assert len(choose_images(predictions, 9)) == 4


def test_needs_masks(tmp_path):
    run = write_image_run(tmp_path / "run", masks=False)
    with pytest.raises(ValueError, match="no defective image with both"):
        save_examples_figure(run, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_needs_the_images(image_run, tmp_path):
    for path in (image_run / "images/scratch").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"scratch.*cannot be read"):
        save_examples_figure(image_run, tmp_path / "a.png")


def test_videos_are_refused(video_run, tmp_path):
    with pytest.raises(ValueError, match="run of videos.*keras-sspcab report"):
        save_examples_figure(video_run, tmp_path / "a.png")


def test_count_is_checked(image_run, tmp_path):
    with pytest.raises(ValueError, match="count=0"):
        save_examples_figure(image_run, tmp_path / "a.png", count=0)
