"""HF2-VAD: crops predicted from flow that memories have rebuilt."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_sspcab.applications import hf2vad_stages as stages
from keras_sspcab.applications.hf2vad_memory import memory_autoencoder
from keras_sspcab.applications.hf2vad_vunet import vunet
from keras_sspcab.checks import standardize_choice, standardize_int
from keras_sspcab.hosts.arguments import (
    check_clip_shape,
    check_places,
    check_positive,
    check_stages,
    check_weights,
)
from keras_sspcab.hosts.base import HostGuide, PublishedEvaluation, Settings
from keras_sspcab.hosts.graph import ALIGNMENTS
from keras_sspcab.hosts.objects import ObjectModel
from keras_sspcab.hosts.published import (
    array_of,
    load_arrays,
    read_checkpoint,
    stage_names,
    swap_colors,
    with_blocks,
)
from keras_sspcab.hosts.registry import register_application
from keras_sspcab.hosts.stages import Stage
from keras_sspcab.optimizers import PyTorchAdam
from keras_sspcab.scoring import Calibration, ZScoreSum

PLACES = ("memory", "decoder")

# Both networks in the published checkpoints, and where a block replaces a
# layer there. That of the decoder is one more layer, which none has.
_NAMES = {
    **stage_names("encoder0", "memAE.in_conv.conv.conv"),
    **stage_names(r"encoder(\d)", r"memAE.down_\1.mpconv.1.conv"),
    r"encoder(\d)_down": r"memAE.down_\1.mpconv.0",
    r"memory(\d)": r"memAE.mem\1",
    r"decoder(\d)_up": r"memAE.up_\1.up",
    **stage_names(r"decoder(\d)", r"memAE.up_\1.conv.conv"),
    "reconstruction": "memAE.out_conv.conv",
    "posterior_stem": "vunet.zc.conv1x1",
    "posterior4_merge_conv": "vunet.zc.channel_norm",
    "posterior_up_conv": "vunet.zc.up.up",
    "prior_stem": "vunet.bottleneck.conv1x1",
    "prior_up_conv": "vunet.bottleneck.up.up",
    "prior_groups_start": "vunet.bottleneck.param_converter",
    r"prior(\d)_merge_conv": r"vunet.bottleneck.channel_norm.s\1",
    "decoder_up2_conv": "vunet.decoder.ups.s3.up",
    "decoder_up1_conv": "vunet.decoder.ups.s2.up",
    "decoder_output": "vunet.decoder.final_layer",
}
for _ours, _there in (("frame", "f_phi"), ("flow", "e_theta")):
    _layer, _part = f"{_ours}_encoder", f"vunet.{_there}"
    _NAMES[f"{_layer}_stem"] = f"{_part}.in_op"
    _NAMES[rf"{_layer}_down(\d)"] = rf"{_part}.downs.s\1.down"
    _NAMES[rf"{_layer}_scale(\d_\d)_conv"] = rf"{_part}.blocks.s\1.conv2d"
for _layer, _part in {
    "posterior_mean4": "zc.blocks.0",
    "posterior_block4": "zc.blocks.1",
    "posterior_mean3": "zc.blocks.2",
    "prior_groups_first": "bottleneck.auto_blocks.0",
    r"prior_groups(\d)": r"bottleneck.auto_blocks.\1",
    r"prior(\d)_first": r"bottleneck.blocks.s\1_2",
    r"prior(\d)_last": r"bottleneck.blocks.s\1_1",
    r"decoder_scale(\d_\d)": r"decoder.blocks.s\1",
}.items():
    _NAMES[f"{_layer}_conv"] = f"vunet.{_part}.conv2d"
    _NAMES[f"{_layer}_skip_conv"] = f"vunet.{_part}.pre"
_BLOCKS = {"memory": "memAE.up_1.conv.conv.3"}
_NAMES["sspcab_memory"] = _BLOCKS["memory"]

# Of the papers that the blocks are from: 0.1 dominated in this host.
_LOSS_WEIGHTS = {"sspcab": 0.01, "ssmctb": 0.001}


@register_application("hf2vad")
@keras.saving.register_keras_serializable(package="keras_sspcab")
class HF2VAD(ObjectModel):
    """Predicts the next crop of an object, from flow as memories rebuild it.

    An auto-encoder with memories rebuilds the optical flow of an object; a
    conditional variational auto-encoder predicts its last crop from those
    before and the rebuilt flow. Where motion is abnormal, the flow is rebuilt
    badly, and this spoils the prediction too. `raw_score` is the weighted sum
    of both errors, each in standard deviations of normal objects around their
    mean, which `fit_scoring` measures.

    Training has three stages (`training_stages`): the memories, with the last
    flow of each cube; the prediction, with the memories fixed; and both.

    References:
    - [Liu et al., ICCV 2021](https://arxiv.org/abs/2108.06852) and its code.
      Frame AUC 99.3 % on Ped2, 91.1 % on Avenue, 76.2 % on ShanghaiTech.
    - [Ristea et al., CVPR 2022](https://arxiv.org/abs/2111.09099), Table 3:
      without and with the block, micro AUC 89.9 and 90.9 %, RBDC 41.1 and
      62.3 % on Avenue.

    The defaults are those of the reference: 57 million weights of memories. A
    tenth of the slots is enough for small sets.

    Args:
        input_shape: `(frames, height, width, channels)` of the cubes, two
            frames at least; height and width multiples of 16. Defaults to
            `(5, 32, 32, 3)`.
        sspcab: `"memory"` (the default) replaces the last convolution but one
            of the memory auto-encoder; `"decoder"` adds the block to the other
            network, between the last residual block and the output; both, or
            None.
        root_width: Channels of the memory auto-encoder at the largest scale.
            Defaults to 32.
        num_slots: Slots of each of its three memories. Defaults to 2000.
        shrink_threshold: Weight up to which a slot is ignored. None (the
            default) is `1 / num_slots`.
        base_width: Channels of the prediction at the largest scale. Defaults to
            64.
        dropout_rate: Dropout in its residual blocks. Defaults to 0.1.
        sspcab_options: Arguments of the blocks; `loss_weight` is 0.01 unless
            given, for `SSMCTBLayer` 0.001.
        flow_weight: Weight of the squared error of flow. Defaults to 1.
        entropy_weight: Weight of the entropy of the memories. Defaults to
            0.0002.
        prediction_weight: Weight of the squared error of crops. Defaults to 1.
        gradient_weight: Weight of the difference of gradients. Defaults to 1.
        divergence_weight: Weight of the Kullback-Leibler divergence. Defaults
            to 1.
        flow_score_weight: Weight of the flow in the score. Defaults to 1.
        prediction_score_weight: Weight of the prediction in the score. Defaults
            to 0.1, that for Ped2; others are not known.
        learning_rates: Rate of Adam that each stage begins with, 0.8 of it
            after five eighths of the steps. Defaults to `(1e-4, 1e-4, 8e-5)`.
        epochs: Epochs of the stages. Defaults to `(80, 80, 80)`.
        batch_sizes: Objects a batch. Defaults to `(256, 128, 128)`.
        alignment: Of convolutions of stride 2: `"pytorch"` (the default), as
            published, or `"keras"`, as in models of before this argument.

    All other arguments are those of `AnomalyModel`.

    Inputs, a dict of float32 tensors: `appearance` `(batch, frames, height,
    width, channels)` in [0, 1], and `motion` `(batch, frames, height, width,
    2)`, the flow to each frame in pixels. The first flow is not used.

    Outputs besides the shared ones: `prediction` `(batch, height, width,
    channels)`; `flow_reconstruction` `(batch, frames - 1, height, width, 2)`;
    `flow_error` and `prediction_error` `(batch,)`, squared errors summed over
    the object. The map is the sum of both, weighted as in the score.

    Example:
    >>> model = HF2VAD((2, 16, 16, 1), root_width=2, num_slots=4, base_width=2)
    >>> model.output["flow_reconstruction"].shape
    (None, 1, 16, 16, 2)
    """

    # A quarter of the paper's widths and a tenth of its slots.
    default_settings: ClassVar[Settings] = {
        "data": {"image_size": 32},
        "model": {"root_width": 8, "num_slots": 200, "base_width": 16},
        "evaluation": {"smoothing": "median", "smoothing_size": 17.0},
    }

    published_evaluation: ClassVar[PublishedEvaluation] = PublishedEvaluation(
        "the most abnormal object of each frame, in deviations of normal "
        "objects and not by video; frames whose cubes are not full left out; "
        "then a median over 17 frames, with zeros around the video",
        {
            "evaluation.normalization": "raw",
            "evaluation.smoothing": "median",
            "evaluation.smoothing_size": 17.0,
        },
    )

    guide: ClassVar[HostGuide] = HostGuide(
        purpose="objects that move unusually; no detector needed",
        training_time="small width: 6 to 9 minutes (UCSD Ped2, a frame in 5, "
        "3 epochs a stage)",
        expectation="small width: micro AUC 88 to 98 on UCSD Ped2",
    )

    takes_frames: ClassVar[bool] = True

    former_arguments: ClassVar[Mapping[str, Any]] = {"alignment": "keras"}

    def __init__(
        self,
        input_shape: Sequence[int] = (5, 32, 32, 3),
        sspcab: str | Sequence[str] | None = "memory",
        root_width: int = 32,
        num_slots: int = 2000,
        shrink_threshold: float | None = None,
        base_width: int = 64,
        dropout_rate: float = 0.1,
        sspcab_options: dict[str, Any] | None = None,
        flow_weight: float = 1.0,
        entropy_weight: float = 2e-4,
        prediction_weight: float = 1.0,
        gradient_weight: float = 1.0,
        divergence_weight: float = 1.0,
        flow_score_weight: float = 1.0,
        prediction_score_weight: float = 0.1,
        learning_rates: Sequence[float] = (1e-4, 1e-4, 8e-5),
        epochs: Sequence[int] = (80, 80, 80),
        batch_sizes: Sequence[int] = (256, 128, 128),
        alignment: str = "pytorch",
        calibration: Calibration | dict[str, Any] | None = None,
        name: str = "hf2vad",
    ) -> None:
        shape = check_clip_shape(
            input_shape, 16, needs_size="the networks have maps of fixed size"
        )
        frames, height, width, channels = shape
        places = check_places(sspcab, PLACES)
        alignment = standardize_choice(alignment, ALIGNMENTS, "alignment")
        self._loss_weights = check_weights(
            flow=flow_weight,
            entropy=entropy_weight,
            prediction=prediction_weight,
            gradient=gradient_weight,
            divergence=divergence_weight,
        )
        self._schedule: list[dict[str, Any]] = [
            {"learning_rate": rate, "epochs": count, "batch_size": size}
            for rate, count, size in zip(
                check_stages(learning_rates, "learning_rates", check_positive),
                check_stages(epochs, "epochs", standardize_int, 0),
                check_stages(batch_sizes, "batch_sizes", standardize_int, 1),
                strict=True,
            )
        ]

        # === Networks ===
        block = dict(sspcab_options or {})
        block.setdefault(
            "loss_weight", _LOSS_WEIGHTS.get(block.get("type", "sspcab"), 0.1)
        )

        def block_of(place: str) -> dict[str, Any] | None:
            named = {"name": f"sspcab_{place}", **block}
            return named if place in places else None

        memory = memory_autoencoder(
            (height, width, 2),
            root_width,
            num_slots,
            shrink_threshold,
            block_of("memory"),
            alignment,
        )
        predictor = vunet(
            (height, width, channels),
            frames - 1,
            base_width,
            dropout_rate,
            block_of("decoder"),
            alignment,
        )

        # === Functional model ===
        size = frames, height, width
        appearance = keras.Input((*size, channels), name="appearance")
        motion = keras.Input((*size, 2), name="motion")
        flows = stages.known_flows(motion)
        rebuilt = stages.rebuild_flows(memory, flows)
        prediction = predictor(stages.vunet_inputs(appearance, rebuilt))[
            "prediction"
        ]
        flow_map = ops.sum(ops.square(rebuilt - flows), axis=(1, 4))
        prediction_map = ops.sum(
            ops.square(prediction - appearance[:, -1]), axis=-1
        )
        scored = ZScoreSum(
            (flow_score_weight, prediction_score_weight), name="object_score"
        )([flow_map, prediction_map])
        super().__init__(
            inputs={"appearance": appearance, "motion": motion},
            outputs=self.detector_outputs(
                scored["score"],
                scored["map"],
                calibration,
                prediction=prediction,
                flow_reconstruction=rebuilt,
                flow_error=ops.sum(flow_map, axis=(1, 2)),
                prediction_error=ops.sum(prediction_map, axis=(1, 2)),
            ),
            name=name,
        )

    @classmethod
    def from_published(
        cls,
        path: str | os.PathLike,
        channel_order: str = "bgr",
        **arguments: Any,
    ) -> "HF2VAD":
        """Makes the model of a published checkpoint.

        Sizes, slots and a block are found from the arrays. Crops are RGB, as
        always: the colors of a network that was trained on BGR are turned
        around.

        Args:
            path: State dict of both networks: `.pth`, `.safetensors` or `.npz`.
            channel_order: `"bgr"` (the default, the authors') or `"rgb"`, the
                order of the colors that the checkpoint was trained on.
            **arguments: As of the constructor, for what is not in the arrays.

        Raises:
            ValueError: If the file does not fit.

        Source: names and order of the channels are those of the authors' public
        code.

        Example:
        >>> HF2VAD.from_published("hf2vad.pth")
        Traceback (most recent call last):
        ...
        ValueError: There is no file with weights at 'hf2vad.pth'
        """
        arrays = read_checkpoint(path)
        stem, output = "vunet.f_phi.in_op", "vunet.decoder.final_layer"
        weight = array_of(arrays, f"{stem}.conv.weight_v", path)
        flows = array_of(arrays, "vunet.e_theta.in_op.conv.weight_v", path)
        frames = flows.shape[1] // 2
        channels = array_of(arrays, f"{output}.conv.weight_v", path).shape[0]
        root_width = array_of(arrays, "memAE.in_conv.conv.conv.0.bias", path)
        slots = array_of(arrays, "memAE.mem3.memMatrix", path)
        # Maps of an eighth of the crop, with eight times the channels.
        side = 8 * math.isqrt(slots.shape[1] // (8 * len(root_width)))
        swap_colors(
            arrays,
            channel_order,
            channels,
            {f"{stem}.conv.weight_v": frames * channels},
            (
                *(
                    f"{output}.conv.{x}"
                    for x in ("weight_v", "weight_g", "bias")
                ),
                *(f"{output}.{x}" for x in ("gamma", "beta")),
            ),
        )
        model = cls(
            (frames + 1, side, side, channels),
            root_width=len(root_width),
            num_slots=len(slots),
            base_width=weight.shape[0],
            **with_blocks(arguments, arrays, _BLOCKS),
        )
        load_arrays(model, arrays, _NAMES, path)
        return model

    @property
    def networks(self) -> dict[str, keras.Model]:
        """The memory auto-encoder and the network that predicts."""
        names = ("memory_autoencoder", "vunet")
        return {name: self.get_layer(name) for name in names}

    def network_inputs(
        self, objects: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        """Returns what each network takes: single flows; frames with flows."""
        flows = np.asarray(stages.known_flows(objects["motion"]))
        rebuilt = self.predict_on_batch(dict(objects))["flow_reconstruction"]
        return {
            "memory_autoencoder": flows.reshape(-1, *flows.shape[2:]),
            "vunet": stages.vunet_inputs(
                np.asarray(objects["appearance"]), np.asarray(rebuilt)
            ),
        }

    @property
    def empty_score(self) -> float:
        """The score of an object without any error, as the reference has it."""
        return self.get_layer("object_score").score_of_nothing

    def fit_scoring(self, data: Any) -> None:
        """Measures mean and deviation of both errors."""
        outputs = self.outputs_on(data, ("flow_error", "prediction_error"))
        self.get_layer("object_score").fit(
            np.stack(list(outputs.values()), axis=-1)
        )
        self.discard_compiled()

    # === Training ===

    def training_stages(self) -> tuple[Stage, ...]:
        """The memories, with the last flow; the prediction; and both."""
        networks: Mapping[str, Any] = self.networks
        memory, predictor = networks["memory_autoencoder"], networks["vunet"]

        def stage(
            index: int,
            terms: Callable[..., Any],
            losses: Sequence[str],
            trained: list[Any],
            fixed: Sequence[Any] = (),
        ) -> Stage:
            return Stage(
                partial(terms, networks),
                {name: self._loss_weights[name] for name in losses},
                ("appearance", "motion"),
                trained,
                fixed,
                name=("memory", "prediction", "joint")[index],
                # The rate falls every 50 epochs, and there are 80.
                decay=(50 / 80, 0.8),
                optimizer=partial(PyTorchAdam, epsilon=1e-7),
                dtype=self.dtype_policy,
                **self._schedule[index],
            )

        of_memory = ("flow", "entropy")
        of_prediction = ("prediction", "gradient", "divergence")
        both = of_memory + of_prediction
        return (
            stage(0, stages.memory_terms, of_memory, [memory]),
            stage(
                1, stages.prediction_terms, of_prediction, [predictor], [memory]
            ),
            stage(2, stages.joint_terms, both, [memory, predictor]),
        )
