import numpy as np
import pytest

from keras_sspcab.metrics import rbdc_tbdc
from tests.metrics.test_region_level import (
    BOX,
    DETECTION_NAMES,
    TRACK_NAMES,
    VECTORS,
)

DETECTIONS, TRACKS, NUM_FRAMES, RBDC, TBDC = VECTORS["B"]


class Frame:
    """The least that a data frame does."""

    def __init__(self, columns):
        self._columns = columns

    @property
    def columns(self):
        return list(self._columns)

    def __getitem__(self, name):
        return self._columns[name]


def as_columns(rows, names, videos=None):
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    if videos is not None:
        columns["video"] = [videos[number] for number in columns["video"]]
    return columns


def as_records(rows, names):
    dtype = [(name, "i4" if name == "video" else "f8") for name in names]
    return np.array([tuple(row) for row in rows], dtype)


def as_pandas(rows, names):
    pandas = pytest.importorskip("pandas")
    # The names of the videos, other columns and the index do not matter.
    columns = as_columns(rows, names, ["01_0014"])
    frame = pandas.DataFrame({"other": [None] * len(rows), **columns})
    return frame.set_index(np.arange(len(rows))[::-1])


FORMS = {
    "rows": lambda rows, names: rows,
    "array": lambda rows, names: np.array(rows),
    "object array": lambda rows, names: np.array(rows, dtype=object),
    "dict": as_columns,
    "dict with names": lambda r, n: as_columns(r, n, ["01_0014"]),
    "reversed dict": lambda r, n: dict(reversed(as_columns(r, n).items())),
    "records": as_records,
    "frame": lambda rows, names: Frame(as_columns(rows, names)),
    "pandas": as_pandas,
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_give_the_same(form):
    result = rbdc_tbdc(
        FORMS[form](DETECTIONS, DETECTION_NAMES),
        FORMS[form](TRACKS, TRACK_NAMES),
        NUM_FRAMES,
    )
    assert (result.rbdc, result.tbdc) == (RBDC, TBDC)


def test_arguments_are_not_changed():
    detections, tracks = np.array(DETECTIONS), np.array(TRACKS)
    before = detections.copy(), tracks.copy()
    rbdc_tbdc(detections, tracks, NUM_FRAMES)
    np.testing.assert_array_equal(detections, before[0])
    np.testing.assert_array_equal(tracks, before[1])


def detection(**changes):
    row = dict(zip(DETECTION_NAMES, (0, 0, *BOX, 0.5), strict=True))
    good, bad = dict(row), {**row, **changes}
    return {name: [good[name], good[name], bad[name]] for name in row}


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        (detection(score=np.nan), r"score not finite \(.*score=nan.* row 2"),
        (detection(score=np.inf), "score not finite"),
        (detection(x_min=-np.inf), "x_min not finite"),
        (detection(frame=np.nan), "frame not finite"),
        (detection(frame=1.5), "frame no whole number"),
        (detection(x_max=-1), r"x_max below x_min \(.* in row 2"),
        (detection(y_max=-3), "y_max below y_min"),
        (detection(score=None), "score not finite"),
        (detection(score="high"), r"detections\['score'\] of dtype <U"),
        (detection(video=0.5), r"detections\['video'\] of dtype float64"),
        (detection(video="a"), r"detections\['video'\]|alike"),
        ({"video": [0]}, "without frame, x_min, y_min, x_max, y_max, score"),
        ({**detection(), "score": [1.0]}, "'score': 1"),
        ({**detection(), "score": [[1.0]] * 3}, r"shape \(3, 1\)"),
        (np.zeros((3, 6)), r"detections of shape \(3, 6\)"),
        (np.zeros(7), r"detections of shape \(7,\)"),
    ],
)
def test_bad_detections_are_named(detections, message):
    with pytest.raises(ValueError, match=message):
        rbdc_tbdc(detections, TRACKS, NUM_FRAMES)


def test_the_first_fault_is_named():
    detections = np.array(DETECTIONS)
    detections[5, -1], detections[3, 4] = np.nan, -1
    with pytest.raises(ValueError, match="x_max below x_min.* in row 3"):
        rbdc_tbdc(detections, TRACKS, NUM_FRAMES)


def test_a_track_has_one_box_a_frame():
    again = [*TRACKS, (1, 0, 3, *BOX), (0, 0, 3, 1, 1, 2, 2)]
    with pytest.raises(ValueError, match=r"second box .*frame=3.* row 31"):
        rbdc_tbdc(DETECTIONS, again, NUM_FRAMES)


def test_missing_names_are_no_video():
    columns = as_columns(DETECTIONS, DETECTION_NAMES, ["a"])
    columns["video"] = np.array([*columns["video"][1:], None], dtype=object)
    with pytest.raises(ValueError, match=r"detections\['video'\]"):
        rbdc_tbdc(columns, TRACKS, NUM_FRAMES)


def test_videos_are_named_alike():
    columns = as_columns(DETECTIONS, DETECTION_NAMES, ["01"])
    with pytest.raises(ValueError, match="video '01', tracks of video 0.0"):
        rbdc_tbdc(columns, TRACKS, NUM_FRAMES)
