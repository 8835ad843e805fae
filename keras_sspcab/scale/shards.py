"""Scores one shard: reads its images, runs the model, writes its file."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sspcab import files
from keras_sspcab.checks import standardize_choice, standardize_int
from keras_sspcab.data.batching import images_at_once
from keras_sspcab.data.checking import warn_of_dark_files
from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.image_files import read_pixels
from keras_sspcab.data.parallel import parallel_map
from keras_sspcab.data.resizing import compiled_resize
from keras_sspcab.optional_inputs import product_name
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.runs.outputs import write_map
from keras_sspcab.scale.folder import ScoreFolder, read_inputs, state_of_file
from keras_sspcab.scale.plan import ScorePlan, Scorer, list_inputs
from keras_sspcab.scoring import (
    DriftComparison,
    DriftReference,
    describe_fault,
    input_statistics,
    join_statistics,
    region_columns,
)


@dataclasses.dataclass(frozen=True)
class ScoringJob:
    """All that a worker needs besides the number of a shard; can be pickled.

    Attributes:
        folder: Where the scores are written, and their plan.
        load_scorer: Loads the model, in the process that runs it.
        batch_size: Images computed together.
        on_error: `"row"` gives an image that cannot be read a row with the
            error, `"raise"` ends.
        reference: What normal images are like; None if the model does not know.

    Example:
    >>> job = ScoringJob.start(  # doctest: +SKIP
    ...     ["images/**/*.png"], load_scorer, scorer, "scores"
    ... )
    """

    folder: ScoreFolder
    load_scorer: Callable[[], Scorer]
    batch_size: int
    on_error: str
    reference: DriftReference | None = None

    @property
    def plan(self) -> ScorePlan:
        """The inputs, the model, and how they are parted."""
        return self.folder.plan

    @classmethod
    def start(
        cls,
        inputs: Sequence[Any],
        load_scorer: Callable[[], Scorer],
        scorer: Scorer,
        folder: Any,
        shard_size: int = 1000,
        maps: bool = False,
        batch_size: int | None = None,
        on_error: str = "row",
    ) -> "ScoringJob":
        """Starts a folder of scores, or continues the one that is there.

        Args:
            inputs: Files, folders and patterns with `*`, `?`, `[...]` and,
                where files are local, `**` for any depth. Also behind a URL
                (with the extra `[io]`).
            load_scorer: Loads the model, also on other machines.
            scorer: The model.
            folder: Where the scores are written.
            shard_size: Images in a file of scores.
            maps: Whether to write anomaly maps as well.
            batch_size: As in `ScoringJob`; None (the default) for up to 32,
                fewer of large images.
            on_error: As in `ScoringJob`.
        """
        if batch_size is None:
            batch_size = images_at_once(scorer.image_size, 32)
        batch_size = standardize_int(batch_size, "batch_size", 1)
        on_error = standardize_choice(on_error, ("raise", "row"), "on_error")
        paths = list_inputs(inputs, read_inputs(folder))
        warn_of_dark_files(paths, _preprocessing_of(scorer))
        plan = ScorePlan.make(paths, scorer, shard_size, maps)
        job = cls(
            ScoreFolder(folder, plan),
            load_scorer,
            batch_size,
            on_error,
            getattr(scorer, "reference", None),
        )
        job.folder.start(paths)
        return job

    def pending(self) -> list[int]:
        """Returns the numbers of the shards that are not done.

        Also of those with files that have changed since.
        """
        shards = range(self.plan.num_shards)
        return [shard for shard in shards if not self.folder.is_current(shard)]


@dataclasses.dataclass(frozen=True)
class _Image:
    path: str
    height: int | None = None
    width: int | None = None
    pixels: Any = None
    error: str | None = None


class ShardScorer:
    """Scores the shards of a job, with a model that is loaded once."""

    def __init__(self, job: ScoringJob, scorer: Scorer | None = None) -> None:
        self._job = job
        self._plan = job.plan
        # Those of the images of the present shard.
        self._statistics: list[dict[str, np.ndarray]] = []
        self._scorer = job.load_scorer() if scorer is None else scorer
        if self._scorer.checksum != job.plan.model_checksum:
            raise ValueError(
                "The model has changed since the start. Received: checksum "
                f"{self._scorer.checksum[:12]}, begun with "
                f"{job.plan.model_checksum[:12]}. Put the old one back, or "
                "choose another folder"
            )
        self._of_regions = region_columns(job.plan.regions)
        self._preprocessing = _preprocessing_of(self._scorer)
        size, channels = job.plan.image_size, job.plan.channels
        self._resize = {
            dtype: compiled_resize(size, channels, self._preprocessing, dtype)
            for dtype in (tf.uint8, tf.float32)
        }

    def score(self, shard: int) -> None:
        """Writes the file of a shard, and replaces one that is there."""
        paths = self._job.folder.inputs_of(shard)
        states = [state_of_file(path) for path in paths]
        rows: list[dict[str, Any]] = []
        self._statistics = []
        first = self._plan.bounds(shard)[0]
        for batch in self._read_ahead(paths):
            rows += self._score_batch(batch, shard, first + len(rows))
        failed = [row for row in rows if row["error"] is not None]
        if failed and self._job.on_error == "raise":
            faults = [f"{row['path']}: {row['error']}" for row in failed]
            raise ValueError(
                f"{len(failed)} images among the {len(rows)} of shard {shard} "
                f"have no score: {enumerate_names(faults)}. Repair or remove "
                'them, or give them rows with on_error="row".'
            )
        comparison = None
        if self._job.reference is not None:
            comparison = DriftComparison.of(
                self._job.reference, join_statistics(self._statistics)
            )
        self._job.folder.write_part(shard, rows, comparison, states)

    def _read_ahead(self, paths: Sequence[str]) -> Iterator[list[_Image]]:
        """Yields batches; the next is read while the model is busy."""
        size = self._job.batch_size
        with ThreadPoolExecutor(1) as reader:
            following = reader.submit(self._read_all, paths[:size])
            for start in range(size, len(paths) + size, size):
                batch = following.result()
                chunk = paths[start : start + size]
                following = reader.submit(self._read_all, chunk)
                yield batch

    def _read_all(self, paths: Sequence[str]) -> list[_Image]:
        if not paths:
            return []
        return parallel_map(self._read, paths)

    def _read(self, path: str) -> _Image:
        try:
            pixels = read_pixels(
                path, self._plan.channels, self._preprocessing, None
            )
        except ValueError as error:
            return _Image(path, error=str(error))
        height, width = pixels.shape[:2]
        resized = self._resize[pixels.dtype](pixels)
        return _Image(path, height, width, resized.numpy())

    def _score_batch(
        self, batch: list[_Image], shard: int, first: int
    ) -> list[dict[str, Any]]:
        """Returns the rows of images; `first` is the number of the first."""
        good = [image.pixels for image in batch if image.error is None]
        results = iter(self._run(good) if good else [])
        rows = []
        for number, image in enumerate(batch, first):
            outputs = next(results) if image.error is None else {}
            error = image.error
            if outputs and (fault := describe_fault(outputs)):
                outputs, error = {}, fault
            names = ("anomaly_score", "is_anomalous", "raw_score")
            row = {name: outputs.get(name) for name in names}
            for column, (name, place) in self._of_regions.items():
                row[column] = outputs[name][place].item() if outputs else None
            if self._plan.products:
                row["product"] = None
            if self._plan.products and outputs:
                index = int(outputs["product_index"])
                row["product"] = product_name(self._plan.products, index)
            if self._plan.maps and outputs:
                row["map_file"] = self._write_map(shard, number, image, outputs)
            rows.append(
                {
                    **row,
                    "path": image.path,
                    "error": error,
                    "height": image.height,
                    "width": image.width,
                    "model_checksum": self._plan.model_checksum,
                }
            )
        return rows

    def _run(self, images: list[np.ndarray]) -> list[dict[str, Any]]:
        """Runs the model; always on batches of one size.

        What an image scores then depends neither on its neighbors' errors nor
        on where a shard ends, and nothing is compiled again.
        """
        size = min(self._job.batch_size, self._plan.shard_size)
        padding = [images[-1]] * (size - len(images))
        outputs = self._scorer(np.stack(images + padding))
        arrays = {name: np.asarray(value) for name, value in outputs.items()}
        if self._job.reference is not None:
            scores = arrays["anomaly_score"][: len(images)]
            looks = input_statistics(np.stack(images))
            self._statistics.append({**looks, "score": scores})
        return [
            {
                name: array[i].item() if array.ndim == 1 else array[i]
                for name, array in arrays.items()
            }
            for i in range(len(images))
        ]

    def _write_map(
        self, shard: int, number: int, image: _Image, outputs: dict[str, Any]
    ) -> str:
        if "anomaly_map" not in outputs:
            raise ValueError("The model gives no anomaly maps.")
        name = f"maps/{shard:05d}/{number:09d}.npy"
        path = self._job.folder.file(*name.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with files.replacing(path) as temporary:
            size: Any = image.height, image.width
            write_map(
                temporary,
                self._preprocessing.restore(outputs["anomaly_map"], size),
            )
        return name


def _preprocessing_of(scorer: Scorer) -> Preprocessing:
    """How files are read; scorers from elsewhere need not know."""
    return getattr(scorer, "preprocessing", Preprocessing())
