"""What the hosts share that look at objects of videos."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_sspcab.hosts.base import MAX_PIXELS, AnomalyModel
from keras_sspcab.hosts.batches import thin_out
from keras_sspcab.hosts.frames import to_unit_interval
from keras_sspcab.hosts.stages import Stage
from keras_sspcab.scoring import Calibration

Batch = dict[str, Any]


class ObjectModel(AnomalyModel):
    """Base of hosts that look at objects cut out of the frames of videos.

    Inputs are dicts of float tensors, of which each row is one object of one
    frame, as `keras_sspcab.data.objects.cube_dataset` gives them. The outputs
    are those of `AnomalyModel`, with an object in the place of an image: the
    map is that of the crop.

    A host is trained in stages, each with a model of its own, and then
    calibrated:

    >>> model.compile()
    >>> model.fit(normal_objects)
    >>> model.calibrate(more_normal_objects)

    A host overrides `training_stages`, `networks`, `network_inputs`,
    `empty_score`, and `fit_scoring` where its score needs statistics of normal
    objects.
    """

    kind: ClassVar[str] = "objects"

    # Epochs are those of each stage. Scores keep their scale from video to
    # video, as the papers have it.
    default_settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "data": {"image_size": 64},
        "training": {"epochs": 10, "batch_size": 64},
        "evaluation": {
            "normalization": "none",
            "smoothing": "gaussian",
            "smoothing_size": 15.0,
        },
    }

    #: The `kind` of `cube_dataset` that gives the inputs.
    cube_kind: ClassVar[str]

    # === What a host decides ===

    def training_stages(self) -> tuple[Stage, ...]:
        """The stages, one after the other, with models of their own."""
        raise NotImplementedError

    @property
    def networks(self) -> dict[str, keras.Model]:
        """The networks that the host is made of, by name, for inference."""
        raise NotImplementedError

    def network_inputs(self, objects: Mapping[str, np.ndarray]) -> Batch:
        """Returns what each of the `networks` is given in the host.

        Args:
            objects: A batch of inputs of the host.

        Returns:
            Arrays, or lists or dicts of such, by the network's name.
        """
        raise NotImplementedError

    @property
    def empty_score(self) -> float:
        """`raw_score` of a frame in which there is no object."""
        raise NotImplementedError

    def object_scores(
        self,
        outputs: Mapping[str, np.ndarray],
        is_first: np.ndarray,
        is_last: np.ndarray,
    ) -> np.ndarray:
        """Scores objects, of which some are in a video's first or last frame.

        Args:
            outputs: The outputs of the model for them.
            is_first: Bool `(objects,)`, whether in the first frame, to which
                nothing has moved.
            is_last: Likewise, the last one, from which nothing moves on.

        Returns:
            Raw scores `(objects,)`; those of the model unless a host knows
            better.
        """
        return outputs["raw_score"]

    # === What they share ===

    def value_range(self, input_name: str) -> tuple[float, float] | None:
        """[0, 1] for appearance; flow, in pixels, has no bounds."""
        return (0.0, 1.0) if input_name == "appearance" else None

    #: The outputs that `score_video` looks at.
    video_score_outputs: ClassVar[tuple[str, ...]] = ("raw_score",)

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Looks at its inputs alone: batches for training may hold more."""
        if isinstance(inputs, Mapping):
            inputs = {x.name: inputs[x.name] for x in self.inputs}
        return super().call(inputs, *args, **kwargs)

    def score_video(self, outputs: Mapping[str, Any]) -> np.ndarray:
        """Brings the scores of the frames of a whole video to [0, 1].

        Args:
            outputs: Array `(frames,)` of `raw_score`, in the order of time.

        Returns:
            Array `(frames,)`; 0 for a video whose frames are all alike.
        """
        return to_unit_interval(outputs["raw_score"])

    def compile(
        self,
        optimizer: Any = None,
        loss: Any = None,
        *,
        learning_rate: float | None = None,
        steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Configures the training of all stages, as the paper does.

        Args:
            optimizer: None: each stage has an optimizer of its own.
            loss: None, likewise.
            learning_rate: The rate that each stage begins with; None takes the
                paper's.
            steps: None: `fit` knows how many steps a stage takes.
            **kwargs: As in `keras.Model.compile`.

        Raises:
            ValueError: If an optimizer, a loss or steps are given.
        """
        given = {"optimizer": optimizer, "loss": loss, "steps": steps}
        if extra := [
            name for name, value in given.items() if value is not None
        ]:
            raise ValueError(
                f"{self.name} is trained in stages, each with an optimizer and "
                f"losses of its own. Received: {', '.join(extra)}. Compile and "
                "fit the models of `training_stages()` to change them"
            )
        self._stage_options = {"learning_rate": learning_rate, **kwargs}

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> dict[str, keras.callbacks.History]:
        """Trains all stages on normal objects, one after the other.

        Args:
            x: Normal objects: a dict of arrays or a dataset of batches.
            y: None; targets are made from the objects.
            epochs: Epochs of each stage. None takes the paper's.
            batch_size: Objects a batch, for arrays. None takes the paper's.
            **kwargs: As in `keras.Model.fit`.

        Returns:
            The `History` of each stage, by its name.

        Raises:
            ValueError: If the model has not been compiled, targets are given,
                or a stage lacks something in the batches.
        """
        options = getattr(self, "_stage_options", None)
        if options is None:
            raise ValueError(
                f"{self.name} has not been compiled. Call `compile()` first"
            )
        if y is not None:
            raise ValueError(
                f"{self.name} takes its targets from the objects. "
                f"Received: y={type(y).__name__}. Leave it out"
            )
        histories = {}
        for stage in self.training_stages():
            count = stage.epochs if epochs is None else epochs
            size: dict[str, Any] = {"shuffle": False}
            length = None
            if isinstance(x, Mapping):
                size = {"batch_size": batch_size or stage.batch_size}
                rows = len(next(iter(x.values())))
                length = -(-rows // size["batch_size"])
            elif hasattr(x, "cardinality"):
                length = max(int(x.cardinality()), 0) or None
            steps = None if length is None else length * count
            stage.model.compile(**options, steps=steps)
            histories[stage.name] = stage.model.fit(
                x, epochs=count, **{**size, **kwargs}
            )
        self.fit_scoring(x)
        # They may have changed since `predict` was compiled.
        self.predict_function = None
        return histories

    def evaluate(
        self, x: Any = None, y: Any = None, **kwargs: Any
    ) -> dict[str, float]:
        """Refuses: each stage has losses of its own."""
        raise ValueError(
            f"{self.name} has no losses of its own: they are those of its "
            "stages. Evaluate the models of `training_stages()`"
        )

    def calibrate(
        self,
        data: Any,
        quantile: float = 0.99,
        pixel_quantile: float = 0.999,
        batch_size: int = 32,
    ) -> Calibration:
        """Measures what is normal, on objects that were not trained on.

        Sets the scale of scores and maps and both thresholds.

        Args:
            data: Normal objects: a dict of arrays, or an iterable of batches.
                With pairs of a batch and its index (`cube_dataset(...,
                with_index=True)`), the scores of frames are measured, each that
                of its most abnormal object: the rate of false alarms is then
                one of frames.
            quantile: Share of the objects or frames that shall lie below the
                threshold. Defaults to 0.99.
            pixel_quantile: The same for pixels of the maps.
            batch_size: Batch size for arrays.

        Returns:
            The new calibration, also at `self.calibration`.

        Raises:
            ValueError: If there is no object, or a score is not finite.
        """
        # Maps come out in the scale of the present calibration.
        present = self.calibration
        scores: list[np.ndarray] = []
        maps: list[np.ndarray] = []
        places: list[np.ndarray] = []
        for objects, index in object_batches(data, batch_size):
            outputs = self.predict_on_batch(objects)
            scores.append(np.asarray(outputs["raw_score"]))
            normalized = np.asarray(outputs["anomaly_map"])
            maps.append(normalized * present.map_std + present.map_mean)
            if index is not None:
                places.append(
                    np.stack([index["video"], index["frame"]], axis=-1)
                )
        values = np.concatenate(scores) if scores else np.empty(0)
        if places:
            values = _highest(values, np.concatenate(places))
        self.calibration = Calibration.measure(
            values, thin_out(maps, MAX_PIXELS), quantile, pixel_quantile
        )
        return self.calibration


def object_batches(
    data: Any, batch_size: int = 32
) -> Iterator[tuple[Batch, Batch | None]]:
    """Yields batches of objects as arrays, each with its index or None.

    Args:
        data: A dict of arrays, or an iterable of dicts or of pairs of a dict
            and its index.
        batch_size: Batch size for a dict of arrays.

    Raises:
        ValueError: If a batch is no dict.
    """
    if isinstance(data, Mapping):
        rows = len(next(iter(data.values())))
        for start in range(0, rows, batch_size):
            stop = start + batch_size
            yield {name: part[start:stop] for name, part in data.items()}, None
        return
    for batch in data:
        objects, index = batch if isinstance(batch, tuple) else (batch, None)
        if not isinstance(objects, Mapping):
            raise ValueError(
                "Objects must come as dicts of arrays, or as pairs of such a "
                f"dict and its index. Received: {type(objects).__name__}"
            )
        yield _arrays(objects), None if index is None else _arrays(index)


def _arrays(batch: Mapping[str, Any]) -> Batch:
    return {name: ops.convert_to_numpy(part) for name, part in batch.items()}


def _highest(scores: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Returns the highest score at each place, a row of `places`."""
    _, where = np.unique(places, axis=0, return_inverse=True)
    highest = np.full(where.max(initial=-1) + 1, -np.inf)
    np.maximum.at(highest, where.ravel(), scores)
    return highest
