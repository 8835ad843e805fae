import pytest

from keras_sspcab.compare import tables
from keras_sspcab.compare.conditions import describe_conditions
from keras_sspcab.compare.page import page

VALUES = {
    ("avenue", "future_frame", "off"): [0.8, 0.9],
    ("avenue", "future_frame", "on"): [0.9, 0.9],
    ("avenue", "mnad", "off"): [0.7, 0.7],
    ("avenue", "mnad", "on"): [0.75, 0.65],
    ("ucsd_ped2", "future_frame", "off"): [0.5, 0.6],
    ("ucsd_ped2", "future_frame", "on"): [0.6, 0.7],
    ("ucsd_ped2", "mnad", "off"): [0.9, 0.8],
    ("ucsd_ped2", "mnad", "on"): [1.0, 0.9],
}


def of_values(cell):
    value = VALUES[cell.data_class, cell.model, cell.block][cell.seed]
    metrics = {"micro_auc": value, "num_test_videos": 12}
    # As in the paper, one host does not localize.
    return metrics | ({} if cell.model == "mnad" else {"rbdc": value / 2})


def conventions_of(cell):
    return {
        "normalization": "per_video",
        "smoothing": "none" if cell.model == "mnad" else "median 17",
        "single_class": "skip",
        "frames_dropped": 4,
        "regions": "connected pixels",
        "tracks": "files" if cell.data_class == "avenue" else "masks",
    }


@pytest.fixture
def make_videos(make):
    def make_videos(metrics_of=of_values, **options):
        defaults = {
            "kind": "video",
            "classes": ("avenue", "ucsd_ped2"),
            "models": ("future_frame", "mnad"),
            "shown": ("micro_auc", "rbdc"),
        }
        return make(metrics_of, **(defaults | options))

    return make_videos


# === As Table 3 ===


def test_hosts_are_rows_and_data_sets_columns(make_videos):
    # Standard deviations with n - 1, by hand: |a - b| / sqrt 2.
    assert tables.result_table(make_videos()).splitlines() == [
        "| host | avenue: micro AUC | avenue: RBDC | ucsd_ped2: micro AUC "
        "| ucsd_ped2: RBDC |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| future_frame | 85.0 ± 7.1 | 42.5 ± 3.5 | 55.0 ± 7.1 | 27.5 ± 3.5 |",
        "| future_frame + SSPCAB | 90.0 ± 0.0 | 45.0 ± 0.0 | 65.0 ± 7.1 "
        "| 32.5 ± 3.5 |",
        "| mnad | 70.0 ± 0.0 | - | 85.0 ± 7.1 | - |",
        "| mnad + SSPCAB | 70.0 ± 7.1 | - | 95.0 ± 7.1 | - |",
    ]
    options = {"blocks": ("off", "on", "penultimate"), "seeds": (0,)}
    table = tables.result_table(
        make_videos(lambda cell: {"micro_auc": 0.5}, **options)
    )
    assert "| mnad + penultimate | 50.0 |" in table


def test_published_figures_have_the_same_form(make_videos):
    models = ("future_frame", "mnad", "unpublished")
    comparison = make_videos(lambda cell: None, models=models)
    table, source = tables.published_table(comparison).split("\n\n")
    assert table.splitlines() == [
        "| host | avenue: micro AUC | avenue: RBDC |",
        "| --- | ---: | ---: |",
        "| future_frame | 85.1 | 19.59 |",
        "| future_frame + SSPCAB | 87.3 | 20.13 |",
        "| mnad | 82.8 | - |",
        "| mnad + SSPCAB | 84.8 | - |",
    ]
    assert source.endswith("(https://arxiv.org/abs/2111.09099), Table 3.")


def test_published_figures_need_a_data_set_of_the_paper(make_videos):
    comparison = make_videos(classes=("ucsd_ped2",))
    assert tables.published_table(comparison) is None
    assert "Published" not in page(comparison, [])
    shown = make_videos(lambda cell: None, shown=("streaming_micro_auc",))
    assert tables.published_table(shown) is None


# === Files ===


def test_page_speaks_of_videos(make_videos):
    text = page(make_videos(), ["one"])
    assert text.startswith(
        "# future_frame, mnad: without → with SSPCAB\n\n## Results\n\n"
        "Percent. Mean ± sample standard deviation over 2 seeds.\n\n| host |"
    )
    assert "\n\nPercent, as the SSPCAB paper gives them for its own" in text
    assert "Networks, epochs and videos of the runs above" in text
    assert "over pairs of equal data set and seed" in text
    assert "complete seeds, over data sets" in text
    # 0.1, 0.1, 0.0, 0.1
    assert "| future_frame | micro AUC | on - off | +7.5 |" in text
    for word in ("image", "class", "mask", "defect"):
        assert word not in text


# === Conditions ===


def test_conditions_say_how_videos_were_measured(make_videos):
    comparison = make_videos(conventions_of=conventions_of)
    lines = describe_conditions(comparison, "x", {}, {})
    for line in (
        "Videos of avenue: 20 normal ones to train and calibrate on; 5 normal "
        "and 7 abnormal frames to test",
        "Smoothing over time: median over 17 frames (future_frame); none, each "
        "frame keeps its own score (mnad)",
        "Frames without a score: 4 at the beginning of each video",
        "Regions: connected pixels",
        "Tracks of the ground truth: read from the files of the data set "
        "(avenue); derived from the ground-truth masks (ucsd_ped2)",
    ):
        assert line in lines
