import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_sspcab.scale import checksum_of_model
from keras_sspcab.scale.folder import ScoreFolder
from keras_sspcab.scale.plan import ScorePlan
from tests.scale.scorers import MeanScorer

PATHS = ["/a.png", "/b.png", "/c.png"]


def make_plan(
    paths=PATHS,
    model="m" * 64,
    size=(8, 9),
    shard_size=2,
    maps=False,
    decision="",
):
    scorer = MeanScorer(checksum=model, image_size=size)
    scorer.decision = decision
    return ScorePlan.make(paths, scorer, shard_size, maps)


def start(path, paths=PATHS, **changes):
    folder = ScoreFolder(path, make_plan(paths, **changes))
    folder.start(paths)
    return folder


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


def test_plans_of_before_have_the_checksum_that_they_had():
    """Shards carry it: they are not scored again."""
    record = make_plan().model_dump(mode="json")
    for name in ("decision", "regions", "products"):
        del record[name]
    lines = json.dumps(record, sort_keys=True) + "\n"
    assert make_plan().checksum == hashlib.sha256(lines.encode()).hexdigest()


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="no inputs"):
        make_plan([])
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
        (
            {"decision": "threshold=3"},
            "another decision (that of the model then, threshold=3 now)",
        ),
    ],
)
def test_a_folder_takes_one_plan_only(tmp_path, changes, message):
    start(tmp_path)
    folder = start(tmp_path)
    assert folder.inputs_of(0) == PATHS[:2]
    assert folder.inputs_of(1) == PATHS[2:]
    before = {p: p.read_bytes() for p in tmp_path.glob("*.*")}
    with pytest.raises(ValueError) as caught:
        start(tmp_path, **changes)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert make_plan(**changes).checksum != make_plan().checksum
    assert {p: p.read_bytes() for p in tmp_path.glob("*.*")} == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        '{"format": 1}',
        json.dumps({**make_plan().model_dump(), "format": 2}),
        json.dumps({**make_plan().model_dump(), "image_size": 3}),
    ],
)
def test_broken_records(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ValueError, match=r"plan\.json cannot be read"):
        start(tmp_path)


def test_other_folders_and_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds no plan of scores"):
        start(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        start(tmp_path / "thesis.tex")


def test_a_start_that_was_killed_can_be_repeated(tmp_path):
    (tmp_path / "inputs.parquet").touch()
    (tmp_path / ".plan.3.tmp.json").write_text("{")
    assert start(tmp_path).inputs_of(0) == PATHS[:2]


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
