"""Scores one shard: reads its images, runs the model, writes its file."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from keras_sspcab.checks import standardize_choice, standardize_int
from keras_sspcab.data.parallel import parallel_map
from keras_sspcab.data.checking import read_pixels
from keras_sspcab.data.decoding import resize
from keras_sspcab.runs import files
from keras_sspcab.scale.folder import ScoreFolder
from keras_sspcab.scale.plan import Plan

_SHOWN = 20


class Scorer(Protocol):
    """A model that is ready.

    Attributes:
        image_size: Height and width of the images it takes.
        channels: 1 for gray, 3 for color.
        checksum: SHA-256 of its files; see `checksum_of_model`.
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
class Job:
    """All that a worker needs besides the number of a shard; can be pickled.

    Attributes:
        folder: Path of the `ScoreFolder`.
        plan: What is in it.
        make_scorer: Loads the model, in the process that runs it.
        batch_size: Images computed together.
        on_error: `"row"` gives an image that cannot be read a row with the
            error, `"raise"` ends.
        save_map: Writes an anomaly map to a path; needed where the plan has
            maps.
    """

    folder: str
    plan: Plan
    make_scorer: Callable[[], Scorer]
    batch_size: int = 32
    on_error: str = "row"
    save_map: Callable[[str, np.ndarray], None] | None = None

    def __post_init__(self) -> None:
        standardize_int(self.batch_size, "batch_size", 1)
        standardize_choice(self.on_error, ("raise", "row"), "on_error")
        if self.plan.maps and self.save_map is None:
            raise ValueError(
                "Maps need a function that writes them. Received: maps=True, "
                "save_map=None"
            )


class ShardScorer:
    """Scores the shards of a job, with a model that is loaded once."""

    def __init__(self, job: Job, scorer: Scorer | None = None) -> None:
        self.job = job
        self._folder = ScoreFolder(job.folder)
        self._scorer = job.make_scorer() if scorer is None else scorer
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
        """Writes the file of a shard; one that is there is written anew.

        Raises:
            ValueError: With `on_error="raise"`, if images cannot be read.
        """
        paths = self._folder.inputs_of(shard)
        rows: list[dict[str, Any]] = []
        for batch in self._read_ahead(paths):
            rows += self._score_batch(batch, shard, len(rows))
        failed = [row for row in rows if row["error"] is not None]
        if failed and self.job.on_error == "raise":
            raise ValueError(_claim(failed, len(rows), shard))
        checksum = self.job.plan.model_checksum
        columns: dict[str, list[Any]] = {
            name: [row[name] for row in rows] for name in rows[0]
        }
        columns["model_checksum"] = [checksum] * len(rows)
        self._folder.write_part(self.job.plan, shard, columns)

    def _read_ahead(self, paths: Sequence[str]) -> Iterator[list["_Image"]]:
        """Yields batches; the next is read while the model is busy."""
        size = self.job.batch_size
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
            pixels = read_pixels(path, self.job.plan.channels)
        except ValueError as error:
            return _Image(path, error=str(error))
        height, width = pixels.shape[:2]
        return _Image(path, height, width, self._resize(pixels).numpy())

    def _score_batch(
        self, batch: list["_Image"], shard: int, offset: int
    ) -> list[dict[str, Any]]:
        good = [image for image in batch if image.error is None]
        outputs = self._run([image.pixels for image in good]) if good else {}
        results = iter(_rows(outputs))
        rows = []
        for i, image in enumerate(batch):
            row = {
                "path": image.path,
                "anomaly_score": None,
                "is_anomalous": None,
                "raw_score": None,
                "error": image.error,
                "height": image.height,
                "width": image.width,
            }
            if self.job.plan.maps:
                row["map_file"] = None
            if image.error is None:
                scores = next(results)
                anomaly_map = scores.pop("anomaly_map", None)
                row |= scores
                if self.job.plan.maps and row["error"] is None:
                    number = self.job.plan.bounds(shard)[0] + offset + i
                    row["map_file"] = self._write_map(
                        shard, number, anomaly_map
                    )
            rows.append(row)
        return rows

    def _run(self, images: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the model; always on batches of one size.

        What an image scores then depends neither on its neighbors' errors nor
        on where a shard ends, and nothing is compiled anew.
        """
        size = min(self.job.batch_size, self.job.plan.shard_size)
        missing = size - len(images)
        outputs = self._scorer(np.stack(images + [images[-1]] * missing))
        return {
            name: np.asarray(value)[: len(images)]
            for name, value in outputs.items()
        }

    def _write_map(self, shard: int, number: int, anomaly_map: Any) -> str:
        if anomaly_map is None or self.job.save_map is None:
            raise ValueError("The model gives no anomaly maps.")
        name = self._folder.map_file(shard, number)
        path = self._folder.file(*name.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with files.replacing(path) as temporary:
            self.job.save_map(temporary, anomaly_map)
        return name


@dataclasses.dataclass(frozen=True)
class _Image:
    path: str
    height: int | None = None
    width: int | None = None
    pixels: Any = None
    error: str | None = None


def _rows(outputs: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """Yields what the model says about one image after the other."""
    raw = outputs.get("raw_score")
    maps = outputs.get("anomaly_map")
    for i, score in enumerate(outputs.get("anomaly_score", ())):
        if not np.isfinite(score):
            # It would pass for normal.
            yield {"error": f"the model gives the score {score}"}
            continue
        yield {
            "anomaly_score": float(score),
            "is_anomalous": bool(outputs["is_anomalous"][i]),
            "raw_score": None if raw is None else float(raw[i]),
            "anomaly_map": None if maps is None else maps[i],
        }


def _claim(failed: list[dict[str, Any]], total: int, shard: int) -> str:
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
