"""The base of hosts that predict frames of video."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from keras_sspcab.hosts.base import AnomalyModel, Settings
from keras_sspcab.hosts.graph import signed


class VideoScoring:
    """Scores of whole videos, for hosts of frames and of objects."""

    #: The outputs that `score_video` looks at.
    video_score_outputs: ClassVar[tuple[str, ...]] = ("raw_score",)

    def score_video(self, outputs: Mapping[str, Any]) -> np.ndarray:
        """Scores the frames of a whole video as the host's paper does.

        Args:
            outputs: Arrays `(frames,)` of one video in the order of time, by
                the names in `video_score_outputs`.

        Returns:
            Array `(frames,)` between the extremes of the video, 0 and 1, larger
            is more anomalous; 0 for a video whose frames are all alike.
        """
        return to_unit_interval(outputs["raw_score"])


class FrameModel(VideoScoring, AnomalyModel):
    """Base of hosts that predict the last frame of a clip.

    Clips are float tensors `(batch, frames, height, width, channels)` in
    [0, 1]. Predictions are in [0, 1] as well, in the output `prediction`;
    losses are measured in [-1, 1], as in the papers. A host overrides what it
    does not only compare by the squared error: `default_losses`,
    `default_loss_weights` and `loss_terms`.

    Example:
    >>> from keras_sspcab.applications import FutureFrame
    >>> issubclass(FutureFrame, FrameModel), FrameModel.kind
    (True, 'video')
    """

    kind: ClassVar[str] = "video"
    takes_frames: ClassVar[bool] = True

    # The batch of the papers.
    default_settings: ClassVar[Settings] = {
        "training": {"epochs": 20, "batch_size": 4}
    }

    def default_losses(self) -> dict[str, Any]:
        """Losses by the name of the term: the squared error of the frame."""
        return {"prediction": keras.losses.MeanSquaredError()}

    def default_loss_weights(self) -> dict[str, float]:
        """Weights of the losses, by the name of the term."""
        return dict.fromkeys(self.default_losses(), 1.0)

    def loss_terms(
        self, clip: Any, target: Any, outputs: dict[str, Any]
    ) -> dict[str, tuple[Any, Any]]:
        """Returns pairs of target and prediction, by the name of the term.

        Args:
            clip: The clip, in [0, 1].
            target: Its last frame, in [-1, 1].
            outputs: The outputs of the model; the prediction in [-1, 1].
        """
        return {"prediction": (target, outputs["prediction"])}

    def score_clips(
        self, clips: Iterable[np.ndarray], **options: Any
    ) -> Iterator[dict[str, Any]]:
        """Yields the outputs for batches of clips in the order of time."""
        for batch in clips:
            yield self.predict_on_batch(batch)

    def compile(
        self, optimizer: Any = None, loss: Any = None, **kwargs: Any
    ) -> None:
        """Configures training; losses go by the name of the term."""
        if loss is None and kwargs.get("loss_weights") is None:
            kwargs["loss_weights"] = self.default_loss_weights()
        super().compile(optimizer, loss, **kwargs)

    def training_targets(self, x: Any, y: Any) -> dict[str, Any]:
        """The last frame of the clip."""
        if y is not None:
            raise ValueError(
                f"{self.name} takes its target from the clip: it is the last "
                "frame. Received a target as well; for data with labels or "
                "indices, pass only the clips"
            )
        return {"prediction": x[:, -1]}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        target = signed(self.training_targets(x, y)["prediction"])
        outputs = {**y_pred, "prediction": signed(y_pred["prediction"])}
        terms = self.loss_terms(x, target, outputs)
        # Not that of the base, which matches targets with outputs by itself.
        return keras.Model.compute_loss(
            self,
            x,
            {name: pair[0] for name, pair in terms.items()},
            {name: pair[1] for name, pair in terms.items()},
            sample_weight,
            training,
        )


def to_unit_interval(values: Any) -> np.ndarray:
    """Brings the extremes of a series to 0 and 1; a constant one is 0."""
    from keras_sspcab.metrics import normalize_per_video

    return normalize_per_video([np.asarray(values, "float64")])[0]
