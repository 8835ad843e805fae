import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_sspcab.metrics import (
    rbdc_tbdc,
    read_detections,
    read_tracks,
    write_detections,
    write_tracks,
)
from tests.metrics.test_region_level import (
    BOX,
    DETECTION_NAMES,
    TRACK_NAMES,
    VECTORS,
)

DETECTIONS, TRACKS, NUM_FRAMES, RBDC, TBDC = VECTORS["B"]


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
    "dict": as_columns,
    "records": as_records,
    "arrow": lambda rows, names: pytest.importorskip("pyarrow").table(
        as_columns(rows, names)
    ),
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


def detection(**changes):
    row = dict(zip(DETECTION_NAMES, (0, 0, *BOX, 0.5), strict=True))
    good, bad = dict(row), {**row, **changes}
    return {name: [good[name], good[name], bad[name]] for name in row}


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        (detection(score=np.nan), r"score not finite \(.*score=nan.* row 2"),
        (detection(frame=1.5), "frame no whole number"),
        (detection(x_max=-1), r"x_max below x_min \(.* in row 2"),
        (detection(y_max=-3), "y_max below y_min"),
        (detection(score="high"), r"detections\['score'\] of dtype <U"),
        (detection(video=0.5), r"detections\['video'\] of dtype float64"),
        ({"video": [0]}, "without frame, x_min, y_min, x_max, y_max, score"),
        ({**detection(), "score": [1.0]}, "'score': 1"),
        ({**detection(), "score": [[1.0]] * 3}, r"shape \(3, 1\)"),
        (np.zeros(7), r"detections of shape \(7,\)"),
    ],
)
def test_bad_detections_are_named(detections, message):
    with pytest.raises(ValueError, match=message):
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


def rows_of(table):
    return list(
        zip(*(column.tolist() for column in table.values()), strict=True)
    )


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_vectors_survive_the_files(tmp_path):
    detections, tracks = tmp_path / "detections", tmp_path / "tracks"
    write_detections(DETECTIONS, detections)
    write_tracks(TRACKS, tracks)
    result = rbdc_tbdc(detections, str(tracks), NUM_FRAMES)
    assert (result.rbdc, result.tbdc) == (RBDC, TBDC)


number = st.floats(-1e6, 1e6) | st.integers(-5, 400)
video = st.sampled_from(["01", "2", "01_0014", "a b", "ä"])


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            video,
            st.integers(0, 10**6),
            number,
            number,
            st.floats(1, 9),
            number,
        )
    )
)
def test_round_trip_loses_no_digit(tmp_path_factory, cases):
    rows = [
        (name, float(frame), x, y, x + size, y + size, float(score))
        for name, frame, x, y, size, score in cases
    ]
    columns = zip(*rows, strict=True) if rows else [[]] * 7
    table = dict(zip(DETECTION_NAMES, columns, strict=True))
    folder = tmp_path_factory.mktemp("round") / "detections"
    write_detections(table, folder, videos=["01", "empty"])
    read = read_detections(folder)
    assert tuple(read) == DETECTION_NAMES
    # By file name; within a video the order stays.
    expected = sorted(rows, key=lambda row: f"{row[0]}.txt")
    assert rows_of(read) == expected
    assert (folder / "empty.txt").read_text() == ""


def test_the_published_layout(tmp_path):
    folder = write(
        tmp_path / "tracks", b="0,3,1,2,11,12\n0,4,1,2,11,12\n", a="1,0,5,5,6,6"
    )
    table = read_tracks(folder)
    assert tuple(table) == TRACK_NAMES
    assert rows_of(table) == [
        ("a", 1, 0, 5, 5, 6, 6),
        ("b", 0, 3, 1, 2, 11, 12),
        ("b", 0, 4, 1, 2, 11, 12),
    ]
    write_tracks(table, tmp_path / "again")
    assert (tmp_path / "again" / "b.txt").read_bytes() == (
        b"0,3,1,2,11,12\n0,4,1,2,11,12\n"
    )


def test_single_rows_empty_files_and_blank_lines(tmp_path):
    folder = write(
        tmp_path / "d",
        a="",
        b="\n \n",
        c="3,0,0,9,9,0.5",
        d="\ufeff1, 0, 0, 9, 9, 1e-3\r\n\r\n2,0,0,9,9,.25\r\n",
    )
    (folder / "notes.md").write_text("not a video")
    assert rows_of(read_detections(folder)) == [
        ("c", 3, 0, 0, 9, 9, 0.5),
        ("d", 1, 0, 0, 9, 9, 0.001),
        ("d", 2, 0, 0, 9, 9, 0.25),
    ]
    only_empty = write(tmp_path / "e", a="", b="")
    assert read_detections(only_empty)["score"].size == 0
    assert rbdc_tbdc(only_empty, [(0, 0, 0, 0, 0, 9, 9)], 5).rbdc == 0.0


GOOD = "0,0,0,9,9,0.5\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame,x_min,y_min,x_max,y_max,score\n" + GOOD, "'frame,.*line 1"),
        (GOOD + "\n0,0,0,9,9\n" + GOOD, r"'0,0,0,9,9' in .*b\.txt, line 3"),
        ("0 0 0 9 9 0.5\n", "separated by commas.*line 1"),
        (GOOD + "0,0,0,9,9,high\n", "high' in .*line 2"),
        (GOOD * 2 + "\n0,0,0,9,9,nan\n", "score not finite.*line 4"),
        (GOOD + "\xff\xfe\n", "line 2"),
    ],
)
def test_bad_lines_are_named(tmp_path, text, message):
    folder = write(tmp_path / "d", a=GOOD)
    (folder / "b.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message) as error:
        read_detections(folder)
    assert str(folder / "b.txt") in str(error.value)


def test_a_second_box_of_a_track_is_named(tmp_path):
    folder = write(tmp_path / "t", v="0,0,0,0,9,9\n1,0,0,0,9,9\n\n0,0,5,5,9,9")
    with pytest.raises(
        ValueError, match=r"second box of a track.*v.txt, line 4"
    ):
        read_tracks(folder)


def test_a_folder_without_text_files(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match=str(folder)):
            read_detections(folder)


def test_nothing_is_overwritten(tmp_path):
    folder = write(tmp_path / "d", old=GOOD)
    detections = VECTORS["A"][0]
    for path in (folder, folder / "old.txt"):
        with pytest.raises(ValueError, match="new or empty"):
            write_detections(detections, path)
    assert (folder / "old.txt").read_text() == GOOD
    (tmp_path / "empty").mkdir()
    write_detections(detections, tmp_path / "empty")
    assert [p.name for p in (tmp_path / "empty").iterdir()] == ["0.txt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "empty"]


def test_names_of_videos_may_be_paths(tmp_path):
    tracks = as_columns(TRACKS, TRACK_NAMES, ["camera/1"])
    write_tracks(tracks, tmp_path / "t")
    assert [p.name for p in (tmp_path / "t").iterdir()] == ["camera%2F1.txt"]
    assert rows_of(read_tracks(tmp_path / "t")) == [
        ("camera/1", *row[1:]) for row in TRACKS
    ]


@pytest.mark.parametrize("name", ["", "a\0"])
def test_videos_are_file_names(tmp_path, name):
    with pytest.raises(ValueError, match="becomes the name of its file"):
        write_detections([], tmp_path / "d", videos=[name])
    assert not (tmp_path / "d").exists()
