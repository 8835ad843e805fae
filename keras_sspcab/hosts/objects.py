"""The base of hosts that look at objects of videos."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from keras_sspcab.hosts.base import AnomalyModel, Settings
from keras_sspcab.hosts.batches import count_batches, hold_out, scoring_data
from keras_sspcab.hosts.frames import VideoScoring
from keras_sspcab.hosts.stages import Stage
from keras_sspcab.preprocessing import Preprocessing


class ObjectModel(VideoScoring, AnomalyModel):
    """Base of hosts that look at objects cut out of the frames of videos.

    Inputs are dicts of float tensors, of which each row is one object of one
    frame, as `keras_sspcab.data.objects.cube_dataset` gives them. The outputs
    are those of `AnomalyModel`, with an object in the place of an image: the
    map is that of the crop. `fit` trains all stages, one after the other.

    A host overrides `training_stages` and `empty_score`; `cube_inputs` where it
    takes something else than cubes and their flow; `fit_scoring` where its
    score needs statistics of normal objects; `networks` and `network_inputs` to
    be exported in parts.

    Example:
    >>> from keras_sspcab.applications import HF2VAD
    >>> issubclass(HF2VAD, ObjectModel), ObjectModel.kind
    (True, 'objects')
    """

    kind: ClassVar[str] = "objects"

    # Epochs are those of each stage. Scores keep their scale from video to
    # video, as the papers have it.
    default_settings: ClassVar[Settings] = {
        "data": {"image_size": 64, "resize": "opencv"},
        "training": {"epochs": 10, "batch_size": 64},
        "evaluation": {
            "normalization": "none",
            "smoothing": "gaussian",
            "smoothing_size": 15.0,
        },
    }

    # Objects are cut out of whole frames.
    preprocessing = Preprocessing(resize="opencv")

    #: Whether batches for training may hold masks of the objects.
    takes_masks: ClassVar[bool] = False

    # === What a host decides ===

    @staticmethod
    def cube_inputs(cubes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Makes the inputs, by name, from objects that were cut out of videos.

        Args:
            cubes: Arrays by name, as `cube_dataset` describes them.
        """
        return {name: cubes[name] for name in ("appearance", "motion")}

    def training_stages(self) -> tuple[Stage, ...]:
        """The stages of the training, in order, made of layers of the model."""
        raise NotImplementedError

    @property
    def networks(self) -> dict[str, keras.Model]:
        """The networks that the host is made of, by name, for inference."""
        raise NotImplementedError

    def network_inputs(
        self, objects: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        """Returns what each of the `networks` is given in the host, by name."""
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
        """Returns raw scores of objects, `(objects,)`.

        Nothing has moved to those in the first frame of a video (`is_first`),
        and nothing moves on from those in the last; a host may make up for it.
        """
        return outputs["raw_score"]

    # === What they share ===

    def value_range(self, input_name: str) -> tuple[float, float] | None:
        """[0, 1] for appearance; flow, in pixels, has no bounds."""
        return (0.0, 1.0) if input_name == "appearance" else None

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Looks at its inputs alone: batches for training may hold more."""
        if isinstance(inputs, Mapping):
            inputs = {x.name: inputs[x.name] for x in self.inputs}
        return super().call(inputs, *args, **kwargs)

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
        """
        given = {"optimizer": optimizer, "loss": loss, "steps": steps}
        if extra := [
            name for name, value in given.items() if value is not None
        ]:
            raise ValueError(
                f"{self.name} is trained in stages, each with an optimizer and "
                f"losses of its own. Received: {', '.join(extra)}. Compile and "
                "fit the `training_stages()` to change them"
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
            x: Normal objects: a dict of arrays or a dataset of batches, of
                TensorFlow or Keras.
            y: None; targets are made from the objects.
            epochs: Epochs of each stage. None takes the paper's.
            batch_size: Objects a batch, for arrays. None takes the paper's.
            **kwargs: As in `keras.Model.fit`.

        Returns:
            The `History` of each stage, by its name.

        Raises:
            ValueError: If objects that are needed again can be read only once,
                or have no end.
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
        self._refuse_weights(y, kwargs)
        x = hold_out(x, kwargs)
        objects, stages = x, self.training_stages()
        if self._fits_scoring():
            objects = scoring_data(x, kwargs.get("steps_per_epoch"), True)
        elif len(stages) > 1 and isinstance(x, Iterator):
            raise ValueError(
                f"Objects must be there to be read in {len(stages)} stages. "
                f"Received: {type(x).__name__}, which can be read only once. "
                "Give a dict of arrays, a tf.data.Dataset or a "
                "keras.utils.PyDataset"
            )
        histories = {}
        for stage in stages:
            count = stage.epochs if epochs is None else epochs
            size = batch_size or stage.batch_size
            length = kwargs.get("steps_per_epoch") or count_batches(x, size)
            steps = None if length is None else length * count
            stage.compile(**options, steps=steps)
            is_array = isinstance(x, Mapping)
            usual = {"batch_size": size} if is_array else {"shuffle": False}
            histories[stage.name] = stage.fit(
                x, epochs=count, **{**usual, **kwargs}
            )
        self.fit_scoring(objects)
        self.discard_compiled()
        return histories

    def evaluate(
        self, x: Any = None, y: Any = None, **kwargs: Any
    ) -> dict[str, float]:
        """Refuses: each stage has losses of its own."""
        raise ValueError(
            f"{self.name} has no losses of its own: they are those of its "
            "stages. Evaluate the `training_stages()`"
        )
