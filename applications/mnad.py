"""MNAD: a frame from what a memory of normal features holds."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import layers, ops

from keras_sspcab.checks import standardize_choice, standardize_int
from keras_sspcab.hosts.arguments import (
    check_clip_shape,
    check_places,
    check_weights,
)
from keras_sspcab.hosts.base import HostGuide, PublishedEvaluation, Settings
from keras_sspcab.hosts.detector import Untracked
from keras_sspcab.hosts.frames import FrameModel, to_unit_interval
from keras_sspcab.hosts.graph import (
    ALIGNMENTS,
    LAST,
    doubling_conv,
    normalized_relu,
    output_frame,
    padded_conv,
    pytorch_initializer,
    sspcab_block,
    stacked_frames,
)
from keras_sspcab.hosts.published import (
    array_of,
    load_arrays,
    read_checkpoint,
    sides,
    stage_names,
    swap_colors,
    with_blocks,
)
from keras_sspcab.hosts.registry import register_application
from keras_sspcab.layers import PrototypeMemory
from keras_sspcab.optimizers import EpochCosineDecay, PyTorchAdam
from keras_sspcab.scoring import (
    Calibration,
    MapPooling,
    PeakSignalToNoise,
    RegularityScore,
    SquaredError,
)
from keras_sspcab.torch_files import read_arrays

# Weight of the terms of the memory in the loss, share of the PSNR in the score,
# and the error up to which a frame is normal enough to learn from.
_PAPER = {"prediction": (0.1, 0.6, 0.01), "reconstruction": (0.01, 0.7, 0.015)}

# The network in the published checkpoints, and where a block replaces a layer.
_NAMES = {
    **stage_names(r"encoder(\d)", r"encoder.moduleConv\1"),
    **stage_names("decoder1", "decoder.moduleConv"),
    **stage_names("decoder2", "decoder.moduleDeconv3"),
    **stage_names("decoder3", "decoder.moduleDeconv2"),
    **stage_names("generator", "decoder.moduleDeconv1"),
    "output_conv": "decoder.moduleDeconv1.6",
}
for _index, _name in enumerate(("4", "3", "2"), 1):
    _NAMES[f"decoder{_index}_up"] = f"decoder.moduleUpsample{_name}.0"
    _NAMES[f"decoder{_index}_up_norm"] = f"decoder.moduleUpsample{_name}.1"
_BLOCKS = {"penultimate": "decoder.moduleDeconv1.3"}
_NAMES["sspcab_penultimate"] = _BLOCKS["penultimate"]


@register_application("mnad")
@keras.saving.register_keras_serializable(package="keras_sspcab")
class MNAD(FrameModel):
    """Rebuilds a frame from features and the prototypes they are nearest to.

    An encoder turns frames into a map of features. Each feature is put beside
    what a memory of a few prototypes of normal features answers to it, and a
    decoder makes a frame of both: that after the frames it has seen
    (`task="prediction"`, with skip connections), or the very same
    (`"reconstruction"`, without). A frame is abnormal if it comes out badly
    (PSNR) or its features are far from all prototypes (`compactness`).

    `raw_score` is `a (1 - g(psnr)) + (1 - a) g(compactness)`. In the paper `g`
    takes the extremes over the video that is scored to 0 and 1, as
    `score_video` does; here those over the normal training clips
    (`fit_scoring`), so that a live stream can be scored.

    References:
    - [Park et al., CVPR 2020](https://arxiv.org/abs/2003.13228), and its code.
      Frame AUC by prediction 97.0 % on Ped2, 88.5 % on Avenue, 70.5 % on
      ShanghaiTech; by reconstruction 90.2, 82.8 and 69.8 %.
    - [Ristea et al., CVPR 2022](https://arxiv.org/abs/2111.09099), Table 3:
      with the block 84.8 % on Avenue and 69.8 % on ShanghaiTech, up from 82.8
      and 68.3 %.

    Args:
        input_shape: `(frames, height, width, channels)`: two frames at least
            for prediction, one for reconstruction; height and width multiples
            of 8, or None. None (the default) takes the paper's, `(5, 256, 256,
            3)` or `(1, 256, 256, 3)`.
        sspcab: `"penultimate"` (the default; instead of the last convolution
            but one of the decoder, before its normalization) or None.
        task: `"prediction"` (the default) or `"reconstruction"`.
        base_width: Channels of the first stage, doubled three times. Defaults
            to 64, the paper's; 8 trains on a CPU.
        num_items: Prototypes in the memory. Defaults to 10.
        compactness_weight: Weight of the distance to the nearest prototype in
            the loss. None (the default) takes the paper's: 0.1, or 0.01 for
            reconstruction.
        separateness_weight: Weight of the margin between the nearest and the
            second nearest prototype, likewise.
        psnr_weight: Share `a` of the PSNR in the score. None (the default)
            takes the paper's: 0.6, or 0.7 for reconstruction.
        alignment: Of transposed convolutions: `"pytorch"` (the default), as
            published, or `"keras"`, as in models of before this argument.

    All other arguments are those of `AnomalyModel`.

    Options of the section `[evaluation]` of a run:
        update_memory: Whether the model learns from frames that look normal
            while it scores, as its paper does. Defaults to False.

    Outputs besides the shared ones: `prediction` `(batch, height, width,
    channels)` in [0, 1], `psnr` in dB, `compactness` and `separateness`, the
    terms of the memory, `(batch,)`.

    Example:
    >>> model = MNAD((3, 32, 32, 1), base_width=2, task="prediction")
    >>> model.output["prediction"].shape
    (None, 32, 32, 1)
    """

    default_settings: ClassVar[Settings] = {"model": {"base_width": 8}}

    evaluation_options: ClassVar[Mapping[str, Any]] = {"update_memory": False}

    former_arguments: ClassVar[Mapping[str, Any]] = {"alignment": "keras"}

    published_resize: ClassVar[str] = "opencv"

    published_evaluation: ClassVar[PublishedEvaluation] = PublishedEvaluation(
        "PSNR and distance to the memory brought to [0, 1] in each video; the "
        "memory learns from the frames that look normal while it scores, from "
        "video to video; no smoothing; frames without a prediction left out",
        {
            "evaluation.normalization": "per_video",
            "evaluation.smoothing": "none",
            "evaluation.update_memory": True,
        },
    )

    guide: ClassVar[HostGuide] = HostGuide(
        purpose="whole frames: predicts the next one, with a memory of normal "
        "ones",
        training_time="small width: 2 to 4 minutes (UCSD Ped2, 64x96, 5 "
        "epochs)",
        expectation="small width: micro AUC 85 on UCSD Ped2",
    )

    def __init__(
        self,
        input_shape: Sequence[int | None] | None = None,
        sspcab: str | Sequence[str] | None = "penultimate",
        task: str = "prediction",
        base_width: int = 64,
        num_items: int = 10,
        sspcab_options: dict[str, Any] | None = None,
        compactness_weight: float | None = None,
        separateness_weight: float | None = None,
        psnr_weight: float | None = None,
        alignment: str = "pytorch",
        calibration: Calibration | dict[str, Any] | None = None,
        name: str = "mnad",
    ) -> None:
        task = standardize_choice(task, tuple(_PAPER), "task")
        predicts = task == "prediction"
        alignment = standardize_choice(alignment, ALIGNMENTS, "alignment")
        shape = check_clip_shape(
            input_shape or (5 if predicts else 1, 256, 256, 3),
            multiple_of=8,
            single=not predicts,
        )
        places = check_places(sspcab, ["penultimate"])
        width = standardize_int(base_width, "base_width", 1)
        memory_weight, default_share, error_limit = _PAPER[task]

        def given(value: float | None, default: float) -> float:
            return default if value is None else value

        share = given(psnr_weight, default_share)
        loss_weights = {
            "prediction": 1.0,
            **check_weights(
                compactness=given(compactness_weight, memory_weight),
                separateness=given(separateness_weight, memory_weight),
            ),
        }

        # === Functional model ===
        clip = keras.Input(shape, name="clip")
        x = stacked_frames(clip, shape[0] - predicts)
        features, skips = _encoder(x, width)
        memory = PrototypeMemory(num_items, name="memory")(features)
        x = _decoder(
            memory["features"], width, skips if predicts else [], alignment
        )
        x = _generator(x, width, places, sspcab_options)
        prediction = output_frame(
            x, shape[-1], kernel_initializer=pytorch_initializer()
        )
        raw_map = SquaredError(name="error_map")(clip[:, -1], prediction)
        error = MapPooling("mean", name="pooling")(raw_map)
        psnr = PeakSignalToNoise(name="psnr")(error)
        raw_score = RegularityScore(share, name="regularity")(
            psnr, memory["compactness"]
        )
        super().__init__(
            inputs=clip,
            outputs=self.detector_outputs(
                raw_score,
                raw_map,
                calibration,
                prediction=prediction,
                psnr=psnr,
                compactness=memory["compactness"],
                separateness=memory["separateness"],
            ),
            name=name,
        )
        self._encoder = Untracked(keras.Model(clip, features))
        self._loss_weights = loss_weights
        self._error_limit = error_limit

    @classmethod
    def from_published(
        cls,
        path: str | os.PathLike,
        keys: str | os.PathLike,
        image_size: int | Sequence[int | None] = 256,
        channel_order: str = "bgr",
        **arguments: Any,
    ) -> "MNAD":
        """Makes the model of a published checkpoint.

        Task, width, items and a block are found from the arrays. Frames are
        RGB, as always: the colors of a network that was trained on BGR are
        turned around.

        Args:
            path: State dict of the network: `.pth`, `.safetensors` or `.npz`.
                The authors publish a pickled module, which must be converted
                where it can be trusted: a pickle runs code.
            keys: The items of the memory, `keys.pt`, `(items, channels)`.
            image_size: Height and width, or a number for squares; None for
                any. Defaults to 256.
            channel_order: `"bgr"` (the default, the authors') or `"rgb"`, the
                order of the colors that the checkpoint was trained on.
            **arguments: As of the constructor, for what is not in the arrays.

        Raises:
            ValueError: If the files do not fit.

        Source: names and order of the channels are those of the authors' public
        code.

        Example:
        >>> MNAD.from_published("mnad.pth", keys="keys.pt")
        Traceback (most recent call last):
        ...
        ValueError: There is no file with weights at 'mnad.pth'
        """
        arrays = read_checkpoint(path)
        first, last = "encoder.moduleConv1.0.weight", _NAMES["output_conv"]
        width, stacked = array_of(arrays, first, path).shape[:2]
        channels = array_of(arrays, f"{last}.weight", path).shape[0]
        up = array_of(arrays, "decoder.moduleUpsample4.0.weight", path)
        predicts = up.shape[0] != up.shape[1]
        items = list(read_arrays(keys).values())
        if len(items) != 1 or items[0].shape[1:] != (8 * width,):
            shapes = [item.shape for item in items]
            raise ValueError(
                f"{os.fspath(keys)} must hold one array of shape (items, "
                f"{8 * width}). Received: {shapes}"
            )
        swap_colors(
            arrays,
            channel_order,
            channels,
            {first: stacked},
            (f"{last}.weight", f"{last}.bias"),
        )
        frames = stacked // channels + predicts
        model = cls(
            (frames, *sides(image_size), channels),
            task="prediction" if predicts else "reconstruction",
            base_width=width,
            num_items=len(items[0]),
            **with_blocks(arguments, arrays, _BLOCKS),
        )
        # The published class has a normalization that it never uses.
        load_arrays(model, arrays, _NAMES, path, ("encoder.moduleBatchNorm.",))
        model.get_layer("memory").items.assign(items[0])
        return model

    video_score_outputs: ClassVar[tuple[str, ...]] = ("psnr", "compactness")

    def score_video(self, outputs: Mapping[str, Any]) -> np.ndarray:
        """As in the paper: `g` takes the extremes over the video to 0 and 1."""
        share = self.get_layer("regularity").psnr_weight
        # 1 - g(x) is g(-x), but for a constant video.
        error = to_unit_interval(-np.asarray(outputs["psnr"]))
        distance = to_unit_interval(outputs["compactness"])
        return share * error + (1.0 - share) * distance

    def default_optimizer(
        self,
        learning_rate: float | None = None,
        steps: int | None = None,
        epochs: int | None = None,
    ) -> keras.optimizers.Optimizer:
        """Adam at 2e-4, in one cosine down to 0, epoch by epoch if known."""
        rate: Any = 2e-4 if learning_rate is None else learning_rate
        if steps is not None:
            epochs = epochs or steps
            rate = EpochCosineDecay(rate, -(-steps // epochs), epochs)
        return PyTorchAdam(rate)

    def default_losses(self) -> dict[str, Any]:
        """Squared error of the frame, and the terms of the memory."""
        return {
            "prediction": keras.losses.MeanSquaredError(),
            # These are losses already, not negative: compared with zeros.
            "compactness": keras.losses.MeanAbsoluteError(),
            "separateness": keras.losses.MeanAbsoluteError(),
        }

    def default_loss_weights(self) -> dict[str, float]:
        """The weights that the constructor was given."""
        return dict(self._loss_weights)

    def loss_terms(
        self, clip: Any, target: Any, outputs: dict[str, Any]
    ) -> dict[str, tuple[Any, Any]]:
        """The frame, and the terms of the memory, which are to be zero."""
        terms = {"prediction": (target, outputs["prediction"])}
        for name in ("compactness", "separateness"):
            term = outputs[name][:, None]
            terms[name] = (ops.zeros_like(term), term)
        return terms

    def fit_scoring(self, data: Any) -> None:
        """Measures PSNR and compactness of normal clips."""
        names = ("psnr", "compactness")
        outputs = self.outputs_on(data, names)
        self.get_layer("regularity").fit(*(outputs[name] for name in names))

    def score_clips(
        self,
        clips: Iterable[np.ndarray],
        update_memory: bool = False,
        **options: Any,
    ) -> Iterator[dict[str, Any]]:
        """Yields the outputs for clips in the order of time.

        With `update_memory` the memory is updated as in `predict_online`, and
        set back in the end.
        """
        return (
            self._iterate_online(clips)
            if update_memory
            else super().score_clips(clips, **options)
        )

    def predict_online(
        self, clips: Any, threshold: float | None = None, keep: bool = False
    ) -> dict[str, np.ndarray]:
        """Scores clips one after the other, and learns from normal ones.

        After each clip that came out well, the memory is updated with its
        features as in training, which affects the clips after it. "Well" is a
        mean of the squared errors `e` of all values in [0, 1], weighted by
        `1 - exp(-e)`, below the threshold.

        Args:
            clips: Clips in the order of time: an array or an iterable of
                batches.
            threshold: Limit of the weighted error. None takes the paper's:
                0.01, or 0.015 for reconstruction.
            keep: Whether the memory stays as it is in the end; else it is set
                back to what it was.

        Returns:
            What `predict` returns, and `updated`, bool `(batch,)`: after which
            clips the memory was updated.
        """
        rows = list(self._iterate_online(clips, threshold, keep))
        if not rows:
            raise ValueError("There must be at least one clip. Received: none")
        return {
            name: np.concatenate([row[name] for row in rows])
            for name in rows[0]
        }

    def _iterate_online(
        self, clips: Any, threshold: float | None = None, keep: bool = False
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields the outputs clip by clip, as `predict_online` joins them."""
        if threshold is None:
            threshold = self._error_limit
        memory = self.get_layer("memory")
        before = ops.convert_to_numpy(memory.items)
        try:
            for clip in (c for b, _ in self.input_batches(clips) for c in b):
                outputs = self.predict_on_batch(clip[None])
                error = np.square(clip[-1] - outputs["prediction"][0])
                weight = 1.0 - np.exp(-error)
                # Without any error there is no weight either.
                mean = (weight * error).sum() / max(weight.sum(), 1e-12)
                updates = bool(mean < threshold)
                if updates:
                    features = self._encoder.value.predict_on_batch(clip[None])
                    memory.update(features)
                rows = {**outputs, "updated": [updates]}
                yield {name: np.asarray(row) for name, row in rows.items()}
        finally:
            if not keep:
                memory.items.assign(before)


def _conv(x: Any, channels: int, name: str) -> Any:
    kernel = pytorch_initializer()
    return padded_conv(x, channels, name, kernel_initializer=kernel)


def _stage(x: Any, channels: int, name: str) -> Any:
    for index in (1, 2):
        conv = f"{name}_conv{index}"
        x = normalized_relu(_conv(x, channels, conv), conv)
    return x


def _encoder(x: Any, width: int) -> tuple[Any, list[Any]]:
    """Features, neither normalized nor activated, and the maps to skip to."""
    skips = []
    for stage in range(1, 4):
        x = _stage(x, width * 2 ** (stage - 1), f"encoder{stage}")
        skips.append(x)
        x = layers.MaxPooling2D(name=f"encoder{stage}_pool", **LAST)(x)
    x = normalized_relu(_conv(x, 8 * width, "encoder4_conv1"), "encoder4_conv1")
    return _conv(x, 8 * width, "encoder4_conv2"), skips


def _decoder(x: Any, width: int, skips: list[Any], alignment: str) -> Any:
    """With skips, up-sampling halves the channels and they fill them up."""
    skips = list(skips)
    channels = 8 * width
    for stage in range(1, 4):
        x = _stage(x, channels, f"decoder{stage}")
        name = f"decoder{stage}_up"
        narrow = channels // 2 if skips else channels
        x = doubling_conv(x, narrow, name, alignment)
        x = normalized_relu(x, name)
        if skips:
            skip = layers.Concatenate(name=f"decoder{stage}_skip")
            x = skip([skips.pop(), x])
        channels //= 2
    return x


def _generator(
    x: Any,
    width: int,
    places: tuple[str, ...],
    sspcab_options: dict[str, Any] | None,
) -> Any:
    """What is between the decoder and the output."""
    x = normalized_relu(_conv(x, width, "generator_conv1"), "generator_conv1")
    if "penultimate" in places:
        x = sspcab_block(x, "penultimate", sspcab_options)
    else:
        x = _conv(x, width, "generator_conv2")
    return normalized_relu(x, "generator_conv2")
