"""Scores one shard: reads its images, runs the model, writes its file."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from keras_sspcab.checks import standardize_choice, standardize_int
from keras_sspcab.data.checking import read_pixels
from keras_sspcab.data.decoding import resize
from keras_sspcab.data.parallel import parallel_map
from keras_sspcab.runs import files
from keras_sspcab.runs.outputs import write_map
from keras_sspcab.scale.folder import ScoreFolder
from keras_sspcab.scale.inputs import list_inputs
from keras_sspcab.scale.plan import ScorePlan

_SHOWN = 20


class Scorer(Protocol):
    """A model that is ready to score images.

    Attributes:
        image_size: Height and width of the images it takes.
        channels: 1 for gray, 3 for color.
        checksum: SHA-256 of its files; see `checksum_of_model`.

    Example:
    >>> class Brightness:
    ...     image_size, channels, checksum = (8, 8), 1, "0"
    ...
    ...     def __call__(self, images):
    ...         scores = images.mean((1, 2, 3))
    ...         return {"anomaly_score": scores, "is_anomalous": scores > 0.5}
    """

    image_size: tuple[int, int]
    channels: int
    checksum: str

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Scores float32 images `(batch, height, width, channels)` in [0, 1].

        Returns:
            `anomaly_score` and `is_anomalous`, and `raw_score` and
            `anomaly_map` if there are such.
        """


@dataclasses.dataclass(frozen=True)
class ScoringJob:
    """All that a worker needs besides the number of a shard; can be pickled.

    Attributes:
        folder: Path of the `ScoreFolder`.
        plan: What is in it.
        load_scorer: Loads the model, in the process that runs it.
        batch_size: Images computed together.
        on_error: `"row"` gives an image that cannot be read a row with the
            error, `"raise"` ends.

    Example:
    >>> job = ScoringJob.start(  # doctest: +SKIP
    ...     ["images/**/*.png"], load_scorer, scorer, "scores"
    ... )
    """

    folder: str
    plan: ScorePlan
    load_scorer: Callable[[], Scorer]
    batch_size: int = 32
    on_error: str = "row"

    def __post_init__(self) -> None:
        standardize_int(self.batch_size, "batch_size", 1)
        standardize_choice(self.on_error, ("raise", "row"), "on_error")

    @classmethod
    def start(
        cls,
        inputs: Sequence[Any],
        load_scorer: Callable[[], Scorer],
        scorer: Scorer,
        folder: Any,
        shard_size: int = 1000,
        maps: bool = False,
        batch_size: int = 32,
        on_error: str = "row",
    ) -> "ScoringJob":
        """Starts a folder of scores, or continues the one that is there.

        Args:
            inputs: Patterns, folders and files; see `list_inputs`.
            load_scorer: Loads the model, also on other machines.
            scorer: The model.
            folder: Where the scores are written.
            shard_size: Images in a file of scores.
            maps: Whether to write anomaly maps as well.
            batch_size: As in `ScoringJob`.
            on_error: As in `ScoringJob`.

        Raises:
            ValueError: If an argument is out of its range, there is no such
                image, or the folder holds other scores.
        """
        paths = list_inputs(inputs)
        plan = ScorePlan.make(
            paths,
            scorer.checksum,
            scorer.image_size,
            scorer.channels,
            shard_size,
            maps,
        )
        path = os.path.abspath(folder)
        job = cls(path, plan, load_scorer, batch_size, on_error)
        ScoreFolder(path).start(plan, paths)
        return job

    def pending(self) -> list[int]:
        """Numbers of the shards that are not done."""
        return ScoreFolder(self.folder).pending(self.plan)


class ShardScorer:
    """Scores the shards of a job, with a model that is loaded once."""

    def __init__(self, job: ScoringJob, scorer: Scorer | None = None) -> None:
        self._job = job
        self._folder = ScoreFolder(job.folder)
        self._scorer = job.load_scorer() if scorer is None else scorer
        if self._scorer.checksum != job.plan.model_checksum:
            raise ValueError(
                "The model has changed since the start. Received: checksum "
                f"{self._scorer.checksum[:12]}, begun with "
                f"{job.plan.model_checksum[:12]}. Put the old one back, or "
                "choose another folder"
            )
        spec = tf.TensorSpec((None, None, job.plan.channels), tf.uint8)
        self._resize = tf.function(
            lambda pixels: resize(pixels, job.plan.image_size),
            input_signature=[spec],
        ).get_concrete_function()

    def score(self, shard: int) -> None:
        """Writes the file of a shard, and replaces one that is there.

        Raises:
            ValueError: With `on_error="raise"`, if images cannot be read.
        """
        paths = self._folder.inputs_of(shard)
        rows: list[dict[str, Any]] = []
        first = self._job.plan.bounds(shard)[0]
        for batch in self._read_ahead(paths):
            rows += self._score_batch(batch, shard, first + len(rows))
        failed = [row for row in rows if row["error"] is not None]
        if failed and self._job.on_error == "raise":
            raise ValueError(_describe_failures(failed, len(rows), shard))
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        self._folder.write_part(self._job.plan, shard, columns)

    def _read_ahead(self, paths: Sequence[str]) -> Iterator[list["_Image"]]:
        """Yields batches; the next is read while the model is busy."""
        size = self._job.batch_size
        with ThreadPoolExecutor(1) as reader:
            following = reader.submit(self._read_all, paths[:size])
            for start in range(size, len(paths) + size, size):
                batch = following.result()
                chunk = paths[start : start + size]
                following = reader.submit(self._read_all, chunk)
                yield batch

    def _read_all(self, paths: Sequence[str]) -> list["_Image"]:
        if not paths:
            return []
        return parallel_map(self._read, paths, "", progress=False)

    def _read(self, path: str) -> "_Image":
        try:
            pixels = read_pixels(path, self._job.plan.channels)
        except ValueError as error:
            return _Image(path, error=str(error))
        height, width = pixels.shape[:2]
        return _Image(path, height, width, self._resize(pixels).numpy())

    def _score_batch(
        self, batch: list["_Image"], shard: int, first: int
    ) -> list[dict[str, Any]]:
        """Returns the rows of images; `first` is the number of the first."""
        good = [image for image in batch if image.error is None]
        results = self._run([image.pixels for image in good]) if good else []
        waiting = iter(results)
        rows = []
        for number, image in enumerate(batch, first):
            outputs = next(waiting) if image.error is None else {}
            score, error = outputs.get("anomaly_score"), image.error
            if score is not None and not np.isfinite(score):
                # It would pass for normal.
                outputs, error = {}, f"the model gives the score {score}"
            row = {
                "path": image.path,
                "anomaly_score": outputs.get("anomaly_score"),
                "is_anomalous": outputs.get("is_anomalous"),
                "raw_score": outputs.get("raw_score"),
                "error": error,
                "height": image.height,
                "width": image.width,
                "model_checksum": self._job.plan.model_checksum,
            }
            if self._job.plan.maps:
                row["map_file"] = None
                if outputs:
                    row["map_file"] = self._write_map(shard, number, outputs)
            rows.append(row)
        return rows

    def _run(self, images: list[np.ndarray]) -> list[dict[str, Any]]:
        """Runs the model; always on batches of one size.

        What an image scores then depends neither on its neighbors' errors nor
        on where a shard ends, and nothing is compiled again.
        """
        size = min(self._job.batch_size, self._job.plan.shard_size)
        padding = [images[-1]] * (size - len(images))
        outputs = self._scorer(np.stack(images + padding))
        arrays = {name: np.asarray(value) for name, value in outputs.items()}
        return [
            {
                name: array[i].item() if array.ndim == 1 else array[i]
                for name, array in arrays.items()
            }
            for i in range(len(images))
        ]

    def _write_map(
        self, shard: int, number: int, outputs: dict[str, Any]
    ) -> str:
        if "anomaly_map" not in outputs:
            raise ValueError("The model gives no anomaly maps.")
        name = self._folder.map_file(shard, number)
        path = self._folder.file(*name.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with files.replacing(path) as temporary:
            write_map(temporary, outputs["anomaly_map"])
        return name


@dataclasses.dataclass(frozen=True)
class _Image:
    path: str
    height: int | None = None
    width: int | None = None
    pixels: Any = None
    error: str | None = None


def _describe_failures(
    failed: list[dict[str, Any]], total: int, shard: int
) -> str:
    lines = [f"  {row['path']}: {row['error']}" for row in failed[:_SHOWN]]
    if len(failed) > len(lines):
        lines.append(f"  and {len(failed) - len(lines)} more")
    return "\n".join(
        [
            f"{len(failed)} images among the {total} of shard {shard} have no "
            "score:",
            *lines,
            'Mend or remove them, or give them rows with on_error="row".',
        ]
    )
