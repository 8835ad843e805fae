import pytest

from keras_sspcab.metrics import image_metrics, pixel_metrics
from keras_sspcab.metrics.registry import describe_convention, metrics_of


def test_what_is_measured_on_images_is_known():
    measured = image_metrics([0, 1], [0.0, 1.0])
    measured |= pixel_metrics([[[0, 1]]], [[[0.0, 1.0]]])
    # The threshold of the best F1 is no share.
    assert set(measured) - {"image_f1_threshold"} == {
        metric.key for metric in metrics_of("image") if not metric.at_threshold
    }


def test_objects_have_the_metrics_of_videos():
    keys = [metric.key for metric in metrics_of("video")]
    assert keys == [metric.key for metric in metrics_of("objects")]
    assert {"micro_auc", "rbdc", "detection_rate"} <= set(keys)
    assert "image_auroc" not in keys


@pytest.mark.parametrize(
    ("key", "value", "title", "text"),
    [
        ("smoothing", "gaussian 2.5", "Smoothing", "deviation of 2.5 frames"),
        ("frames_dropped", 4, "Frames without", "4 at the beginning"),
        (
            "normalization",
            "per_video",
            "Normalization",
            "brought to \\[0, 1\\]",
        ),
        ("update_memory", True, "Memory", "learns from"),
        ("tracks", "masks", "Tracks", "derived from the ground-truth masks"),
        ("regions", "flood fill", "Regions", "flood fill"),
        ("of tomorrow", 1, "of tomorrow", "1"),
    ],
)
def test_conventions_are_told_in_words(key, value, title, text):
    described = describe_convention(key, value)
    assert described[0].startswith(title)
    assert text.replace("\\", "") in described[1]
