"""The folder of one table of scores: what is in it and what is still to do."""

import dataclasses
import functools
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from pydantic import ValidationError

from keras_sspcab import files
from keras_sspcab.files import now
from keras_sspcab.imports import import_optional
from keras_sspcab.locks import folder_lock, remove_leftovers
from keras_sspcab.scale.plan import ScorePlan
from keras_sspcab.scoring import (
    Drift,
    DriftComparison,
    DriftReference,
    region_columns,
)

_PLAN, _INPUTS, _SUCCESS = "plan.json", "inputs.parquet", "_SUCCESS.json"
_PLAN_KEY, _ROWS_KEY = b"keras_sspcab.plan", b"keras_sspcab.rows"
_DRIFT_KEY, _FILES_KEY = b"keras_sspcab.drift", b"keras_sspcab.files"

# Columns that every file has.
_CHECKED = {"path", "model_checksum", "error", "is_anomalous"}


def import_pyarrow() -> Any:
    """Returns the module `pyarrow`, with `pyarrow.parquet` in it."""
    purpose = "Scores in Parquet files need PyArrow"
    import_optional("pyarrow.parquet", purpose, "scale")
    return sys.modules["pyarrow"]


@dataclasses.dataclass(frozen=True)
class ScoreCounts:
    """What is in a finished table of scores.

    Attributes:
        num_inputs: Number of inputs, and of rows.
        num_scored: Rows with a score.
        num_errors: Rows with an error.
        num_anomalous: Rows with `is_anomalous`.
        num_shards: Number of files.
        model_checksum: SHA-256 of the model.
        num_compared: Images that were compared with the normal ones of the
            model: 0 if it does not know these.
        drifts: What differs from these over all of the images.
        drifting_shards: Numbers of the shards that differ by themselves.

    Example:
    >>> counts = ScoreCounts(3, 2, 1, 1, 1, "0")
    >>> counts.num_inputs == counts.num_scored + counts.num_errors
    True
    """

    num_inputs: int
    num_scored: int
    num_errors: int
    num_anomalous: int
    num_shards: int
    model_checksum: str
    num_compared: int = 0
    drifts: tuple[Drift, ...] = ()
    drifting_shards: tuple[int, ...] = ()


class ScoreFolder:
    """Paths and records of one table of scores; it need not exist.

    Files:
        plan.json: what the scores belong to; see `ScorePlan`.
        inputs.parquet: the paths of all inputs, a row group for each shard.
        scores/part-NNNNN.parquet: one shard. It is there if it is done.
        maps/NNNNN/NNNNNNNNN.npy: anomaly maps by the number of the input.
        _SUCCESS.json: counts, once every input has exactly one row.
    """

    def __init__(self, path: Any, plan: ScorePlan) -> None:
        self.path = os.path.abspath(path)
        self.plan = plan

    def file(self, *parts: str) -> str:
        """Returns the path of something inside the folder."""
        return os.path.join(self.path, *parts)

    def part(self, shard: int) -> str:
        """Path of the scores of a shard."""
        return self.file("scores", f"part-{shard:05d}.parquet")

    @property
    def success(self) -> str:
        """Path of the record that is written last."""
        return self.file(_SUCCESS)

    def start(self, inputs: Sequence[str]) -> None:
        """Writes plan and inputs; a folder with the same plan is continued."""
        if os.path.lexists(self.path) and not os.path.isdir(self.path):
            raise ValueError(
                f"{self.path} is a file. Choose a folder for the scores"
            )
        with self.locked():
            if os.path.isfile(self.file(_PLAN)):
                if differences := self._read_plan().differences(self.plan):
                    raise ValueError(
                        f"{self.path} holds scores of "
                        f"{'; '.join(differences)}. Give what was given then "
                        "to continue, or choose another folder"
                    )
                if read_inputs(self.path) != inputs:  # they are broken
                    self._write_inputs(inputs)
            else:
                self._write_plan(inputs)
            os.makedirs(self.file("scores"), exist_ok=True)

    def locked(self) -> AbstractContextManager[bool]:
        """Returns a context in which no other process writes to the folder."""
        return folder_lock(self.path)

    def _write_plan(self, inputs: Sequence[str]) -> None:
        # A start that was killed at once may have left the list.
        names = os.listdir(self.path)
        if any(n != _INPUTS and not n.startswith(".") for n in names):
            raise ValueError(
                f"{self.path} is not empty and holds no plan of scores. "
                "Choose another folder"
            )
        self._write_inputs(inputs)
        # Last: a folder with this file can be continued.
        files.write_json(self.file(_PLAN), self.plan.model_dump(mode="json"))

    def _write_inputs(self, inputs: Sequence[str]) -> None:
        arrow = import_pyarrow()
        table = arrow.table({"path": arrow.array(inputs, arrow.string())})
        with files.replacing(self.file(_INPUTS)) as temporary:
            arrow.parquet.write_table(
                table, temporary, row_group_size=self.plan.shard_size
            )

    def _read_plan(self) -> ScorePlan:
        path = self.file(_PLAN)
        with open(path, "rb") as file:
            try:
                return ScorePlan.model_validate_json(file.read())
            except ValidationError as error:
                problem = error.errors()[0]
                place = ".".join(map(str, problem["loc"]))
                raise ValueError(
                    f"{path} cannot be read, it is no plan of this version: "
                    f"{place}: {problem['msg']}. Choose another folder"
                ) from error

    @functools.cached_property
    def _index_of_inputs(self) -> Any:
        # It grows with the number of shards: read for each, it would take more
        # time than their scores.
        return import_pyarrow().parquet.read_metadata(self.file(_INPUTS))

    def inputs_of(self, shard: int) -> list[str]:
        """Returns the paths of the inputs of a shard."""
        parquet, index = import_pyarrow().parquet, self._index_of_inputs
        with parquet.ParquetFile(self.file(_INPUTS), metadata=index) as file:
            return file.read_row_group(shard)["path"].to_pylist()

    def is_done(self, shard: int) -> bool:
        """Whether a shard of this plan is there, as far as its footer tells."""
        return self._notes_of(shard) is not None

    def is_current(self, shard: int) -> bool:
        """Whether a shard is done and none of its images has changed since.

        Files that have vanished, and those behind URLs, do not count.
        """
        notes = self._notes_of(shard)
        if notes is None or _FILES_KEY not in notes:
            # Those of earlier versions have none.
            return notes is not None
        noted = json.loads(notes[_FILES_KEY])
        present = map(state_of_file, self.inputs_of(shard))
        return all(
            now in (None, then)
            for then, now in zip(noted, present, strict=True)
        )

    def _notes_of(self, shard: int) -> dict[bytes, bytes] | None:
        """Returns what is noted in the file of a shard; None if not done."""
        path = self.part(shard)
        if not os.path.isfile(path):
            return None
        arrow = import_pyarrow()
        try:
            footer = arrow.parquet.read_metadata(path)
        except (OSError, ValueError, arrow.ArrowException):
            # Cut off by others: what is written here is moved when complete.
            return None
        start, end = self.plan.bounds(shard)
        notes = footer.metadata or {}
        is_whole = footer.num_rows == end - start
        is_own = notes.get(_PLAN_KEY) == self.plan.checksum.encode()
        return notes if is_whole and is_own else None

    def write_part(
        self,
        shard: int,
        rows: Sequence[dict[str, Any]],
        comparison: DriftComparison | None = None,
        states: Sequence[str | None] | None = None,
    ) -> None:
        """Writes the scores of a shard, all of them or nothing.

        `comparison` is that of its images with normal ones, `states` are those
        of its files as of `state_of_file`, before they were read.
        """
        arrow = import_pyarrow()
        schema = _schema(self.plan)
        table = arrow.Table.from_pylist(rows, schema=schema)
        checksums = {
            _PLAN_KEY: self.plan.checksum,
            _ROWS_KEY: _checksum(table.to_pydict()),
        }
        if comparison is not None:
            values = dataclasses.asdict(comparison)
            checksums[_DRIFT_KEY] = json.dumps(values).encode()
        if states is not None:
            checksums[_FILES_KEY] = json.dumps(states).encode()
        table = table.replace_schema_metadata(checksums)
        with files.replacing(self.part(shard)) as temporary:
            arrow.parquet.write_table(table, temporary)

    def finish(self, reference: DriftReference | None = None) -> ScoreCounts:
        """Checks the whole table, and writes `_SUCCESS.json`.

        Nobody may be writing: what killed workers have left is removed. By the
        `reference` it is told what differs from normal images.
        """
        counts = self._check(reference)
        remove_leftovers(self.path)
        record = dataclasses.asdict(counts)
        record["drifts"] = [drift.to_dict() for drift in counts.drifts]
        files.write_json(self.success, {**record, "finished": now()})
        return counts

    def _check(self, reference: DriftReference | None) -> ScoreCounts:
        """Reads the table: every input must have exactly one row."""
        plan = self.plan
        parts = [self.part(shard) for shard in range(plan.num_shards)]
        known = {os.path.basename(path) for path in parts}
        problems = [
            f"{self.file('scores', name)} does not belong here"
            for name in sorted(set(os.listdir(self.file("scores"))) - known)
            # A reader of the table looks past these.
            if not name.startswith((".", "_"))
        ]
        num_errors = num_anomalous = 0
        compared: list[tuple[int, DriftComparison]] = []
        arrow = import_pyarrow()
        for shard, path in enumerate(parts):
            if not self.is_done(shard):
                state = "broken" if os.path.exists(path) else "missing"
                problems.append(f"{path} is {state}")
                continue
            try:
                with arrow.parquet.ParquetFile(path) as file:
                    table = file.read()
                columns = table.to_pydict()
                if missing := _CHECKED - columns.keys():
                    raise ValueError(f"no column {', '.join(sorted(missing))}")
                # Files of earlier versions have none.
                notes = table.schema.metadata or {}
                checksum = notes.get(_ROWS_KEY)
                if _DRIFT_KEY in notes:
                    values = json.loads(notes[_DRIFT_KEY])
                    compared.append((shard, DriftComparison(**values)))
                if checksum not in (None, _checksum(columns)):
                    raise ValueError("the rows are not those written")
            # Damage also makes other types of what is in the file.
            except (
                *(OSError, ValueError, TypeError),
                arrow.ArrowException,
            ) as error:
                problems.append(f"{path} is broken ({error})")
                continue
            if columns["path"] != self.inputs_of(shard):
                problems.append(f"{path} has other rows than its inputs")
            if set(columns["model_checksum"]) != {plan.model_checksum}:
                problems.append(f"{path} is of another model")
            num_errors += sum(error is not None for error in columns["error"])
            num_anomalous += sum(map(bool, columns["is_anomalous"]))
        if problems:
            raise ValueError(
                "The table of scores is not one row for each input: "
                f"{'; '.join(problems[:5])}. Remove what is wrong and start "
                "again: only that is scored"
            )
        counts = ScoreCounts(
            plan.num_inputs,
            plan.num_inputs - num_errors,
            num_errors,
            num_anomalous,
            plan.num_shards,
            plan.model_checksum,
        )
        if reference is None:
            return counts
        joined = DriftComparison.joined([part for _, part in compared])
        return dataclasses.replace(
            counts,
            num_compared=joined.num_images,
            drifts=joined.drifts(reference),
            drifting_shards=tuple(
                shard for shard, part in compared if part.drifts(reference)
            ),
        )


def state_of_file(path: str) -> str | None:
    """Returns size and time of a local file; None if it is missing."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return f"{status.st_size} {status.st_mtime_ns}"


def read_inputs(folder: Any) -> list[str]:
    """Returns the inputs of a folder of scores; none where there is no list."""
    arrow = import_pyarrow()
    path = os.path.join(folder, _INPUTS)
    try:
        with arrow.parquet.ParquetFile(path) as file:
            return file.read()["path"].to_pylist()
    except (OSError, KeyError, arrow.ArrowException):
        return []


def _checksum(columns: dict[str, Any]) -> bytes:
    """Returns the SHA-256 of rows: the format does not notice all damage."""
    text = json.dumps(columns)
    return hashlib.sha256(text.encode()).hexdigest().encode()


def _schema(plan: ScorePlan) -> Any:
    """The columns of the table, as the docstring of `score_shards` has them."""
    arrow = import_pyarrow()
    columns = [
        arrow.field("path", arrow.string(), nullable=False),
        ("anomaly_score", arrow.float32()),
        ("is_anomalous", arrow.bool_()),
        ("raw_score", arrow.float32()),
        ("error", arrow.string()),
        ("height", arrow.int32()),
        ("width", arrow.int32()),
        arrow.field("model_checksum", arrow.string(), nullable=False),
    ]
    kinds = {"region_scores": arrow.float32()}
    for column, (output, _) in region_columns(plan.regions).items():
        columns.append((column, kinds.get(output, arrow.bool_())))
    if plan.products:
        columns.append(("product", arrow.string()))
    if plan.maps:
        columns.append(("map_file", arrow.string()))
    return arrow.schema(columns)
