import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_sspcab.scale import ScoreFolder, ScorePlan, checksum_of_model

PATHS = ["/a.png", "/b.png", "/c.png"]


def make_plan(paths=PATHS, model="m" * 64, size=(8, 9), shard_size=2, **more):
    return ScorePlan.make(paths, model, size, 1, shard_size, **more)


@given(st.integers(1, 200), st.integers(1, 50))
def test_shards_part_the_inputs(count, shard_size):
    plan = make_plan([str(i) for i in range(count)], shard_size=shard_size)
    numbers = [
        number
        for shard in range(plan.num_shards)
        for number in range(*plan.bounds(shard))
    ]
    assert numbers == list(range(count))
    sizes = {b - a for a, b in map(plan.bounds, range(plan.num_shards - 1))}
    assert sizes <= {shard_size}


def test_inputs_must_be_there_once():
    for paths in ([], ["/a.png", "/a.png"]):
        with pytest.raises(ValueError, match="each of them once"):
            make_plan(paths)
    with pytest.raises(ValueError, match="shard_size"):
        make_plan(shard_size=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paths": PATHS[:2]}, "other inputs (3 images then, 2 now)"),
        ({"paths": ["/a.png", "/b.png", "/d.png"]}, "other inputs"),
        ({"model": "n" * 64}, "another model (checksum mmmmmmmmmmmm then"),
        ({"size": (9, 9)}, "another image_size ((8, 9) then, (9, 9) now)"),
        ({"shard_size": 3}, "another shard_size (2 then, 3 now)"),
        ({"maps": True}, "another maps (False then, True now)"),
    ],
)
def test_a_folder_takes_one_plan_only(tmp_path, changes, message):
    folder = ScoreFolder(tmp_path / "out")
    assert folder.start(make_plan(), PATHS) is False
    assert folder.start(make_plan(), PATHS) is True
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    with pytest.raises(ValueError) as caught:
        folder.start(make_plan(**changes), changes.get("paths", PATHS))
    assert message in str(caught.value)
    assert str(tmp_path / "out") in str(caught.value)
    assert make_plan(**changes).checksum != make_plan().checksum
    after = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert after == before


def test_the_record_is_read_as_it_was_written(tmp_path):
    folder = ScoreFolder(tmp_path / "out")
    folder.start(make_plan(), PATHS)
    assert folder.read_plan() == make_plan()
    assert folder.read_plan().checksum == make_plan().checksum
    assert folder.inputs_of(0) == PATHS[:2]
    assert folder.inputs_of(1) == PATHS[2:]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        '{"format": 1}',
        json.dumps({**make_plan().to_dict(), "format": 2}),
        json.dumps({**make_plan().to_dict(), "image_size": 3}),
    ],
)
def test_broken_records(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ValueError, match=r"plan\.json cannot be read"):
        ScoreFolder(tmp_path).start(make_plan(), PATHS)


def test_other_folders_and_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds no plan of scores"):
        ScoreFolder(tmp_path).start(make_plan(), PATHS)
    with pytest.raises(ValueError, match="is a file"):
        ScoreFolder(tmp_path / "thesis.tex").start(make_plan(), PATHS)


def test_a_start_that_was_killed_can_be_repeated(tmp_path):
    folder = ScoreFolder(tmp_path)
    folder.start(make_plan(), PATHS)
    (tmp_path / "plan.json").unlink()
    (tmp_path / ".plan.3.tmp.json").write_text("{")
    other = ["/x.png"]
    assert folder.start(make_plan(other), other) is False
    assert folder.inputs_of(0) == other


def test_checksums_of_models(tmp_path):
    file = tmp_path / "model.keras"
    file.write_bytes(b"weights")
    assert (
        checksum_of_model(str(file)) == hashlib.sha256(b"weights").hexdigest()
    )

    folder = tmp_path / "1"
    for name in ("saved_model.pb", "variables/variables.index"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    lines = "".join(
        f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n"
        for name in ("saved_model.pb", "variables/variables.index")
    )
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert checksum_of_model(str(folder)) == expected
    (folder / "parity.json").write_text("{}")
    assert checksum_of_model(str(folder)) == expected
    (folder / "variables" / "variables.index").write_text("other")
    assert checksum_of_model(str(folder)) != expected
