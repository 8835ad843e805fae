"""What the hosts share that predict frames of video."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import layers

from keras_sspcab.hosts.arguments import check_input_shape
from keras_sspcab.hosts.base import AnomalyModel
from keras_sspcab.layers import SSPCABLayer

PLACES = ("penultimate",)

LAST: dict[str, Any] = {"data_format": "channels_last"}


class FrameModel(AnomalyModel):
    """Base of hosts that predict the last frame of a clip.

    Clips are float tensors `(batch, frames, height, width, channels)` in
    [0, 1]. Predictions are in [0, 1] as well; losses are measured in [-1, 1],
    as in the papers.

    A host overrides `default_losses`, `default_loss_weights` and `loss_terms`.
    """

    kind: ClassVar[str] = "video"
    takes_frames: ClassVar[bool] = True

    # The batch of the papers.
    default_settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "training": {"epochs": 20, "batch_size": 4}
    }

    #: The outputs that `score_video` looks at.
    video_score_outputs: ClassVar[tuple[str, ...]] = ("raw_score",)

    def score_video(self, outputs: Mapping[str, Any]) -> np.ndarray:
        """Scores the frames of a whole video as the host's paper does.

        It brings the values to [0, 1] by their extremes over the video, for
        which all of it must have been seen; `anomaly_score` needs no look
        ahead.

        Args:
            outputs: Arrays `(frames,)` of one video in the order of time, by
                the names in `video_score_outputs`.

        Returns:
            Array `(frames,)` in [0, 1], larger is more anomalous; 0 for a video
            whose frames are all alike.
        """
        return to_unit_interval(outputs["raw_score"])

    def default_loss_weights(self) -> dict[str, float]:
        """Weights of the losses, by the name of the term."""
        raise NotImplementedError

    def loss_terms(
        self, clip: Any, target: Any, outputs: dict[str, Any]
    ) -> dict[str, tuple[Any, Any]]:
        """What the losses compare.

        Args:
            clip: The clip, in [0, 1].
            target: Its last frame, in [-1, 1].
            outputs: The outputs of the model; the prediction in [-1, 1].

        Returns:
            Pairs of target and prediction, by the name of the term.
        """
        raise NotImplementedError

    def compile(
        self, optimizer: Any = None, loss: Any = None, **kwargs: Any
    ) -> None:
        """Configures training, by default as the host's paper does.

        Args:
            optimizer: As in `AnomalyModel.compile`.
            loss: Losses by the name of the term; None takes those of the paper,
                and its weights where `loss_weights` is not given.
            **kwargs: As in `AnomalyModel.compile`.
        """
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


def check_clip_shape(
    shape: Sequence[int | None],
    multiple_of: int,
    minimum: int,
    frames: str,
) -> tuple[int, int | None, int | None, int]:
    """Returns `(frames, height, width, channels)`, or raises a ValueError.

    Args:
        shape: The argument of a host; height and width may be None.
        multiple_of: What height and width must be multiples of.
        minimum: The least height and width.
        frames: `"several"` or `"one"`: how many frames the host looks at.
    """
    shape = tuple(shape)
    known = len(shape) == 4 and shape[0] is not None and shape[3] is not None
    if not known:
        raise ValueError(
            "`input_shape` must be (frames, height, width, channels) with a "
            "known number of frames and channels. "
            f"Received: input_shape={shape}"
        )
    count = shape[0] or 0
    if count != 1 if frames == "one" else count < 2:
        rule = (
            "one frame, which is reconstructed"
            if frames == "one"
            else "two frames or more, the last of which is predicted"
        )
        raise ValueError(
            f"Clips must have {rule}. Received: input_shape={shape}"
        )
    return (count, *check_input_shape(shape[1:], multiple_of, minimum))


def check_weights(**weights: float) -> dict[str, float]:
    """Returns the weights of losses as floats, or raises a ValueError."""
    for name, value in weights.items():
        if not float(value) >= 0:
            raise ValueError(
                f"`{name}_weight` must be at least 0. "
                f"Received: {name}_weight={value!r}"
            )
    return {name: float(value) for name, value in weights.items()}


def stacked_frames(clip: Any, count: int) -> Any:
    """The first frames of a clip in [-1, 1], one behind the other."""
    frames = [clip[:, index] for index in range(count)]
    x = layers.Rescaling(2.0, -1.0, dtype="float32", name="signed")
    if count == 1:
        return x(frames[0])
    return x(layers.Concatenate(name="frames")(frames))


def signed(frame: Any) -> Any:
    """From [0, 1] to [-1, 1]."""
    return 2.0 * frame - 1.0


def output_frame(x: Any, channels: int, **arguments: Any) -> Any:
    """The last convolution and a tanh, brought to [0, 1]."""
    x = layers.Conv2D(
        channels, 3, padding="same", name="output_conv", **LAST, **arguments
    )(x)
    # float32 under mixed precision too: the score is a small difference.
    x = layers.Activation("tanh", dtype="float32", name="output_tanh")(x)
    return layers.Rescaling(0.5, 0.5, dtype="float32", name="prediction")(x)


def penultimate_block(x: Any, options: dict[str, Any] | None) -> Any:
    """The block in place of the penultimate convolution."""
    arguments = {"name": "sspcab_penultimate", **LAST, **(options or {})}
    return SSPCABLayer(**arguments)(x)
