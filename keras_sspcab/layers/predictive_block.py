"""What all blocks are: a prediction from the surroundings, and its loss."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from keras_sspcab.checks import (
    standardize_choice,
    standardize_int,
    standardize_number,
)
from keras_sspcab.layers.auxiliary_loss import (
    BlockLossReport,
    auxiliary_loss_scale,
    auxiliary_losses_enabled,
    resolve_loss,
    serialize_loss,
)
from keras_sspcab.layers.base import (
    INITIALIZERS,
    EffectLayer,
    Shape,
    WeightedLayer,
    at_least_float32,
    pytorch_initializers,
)
from keras_sspcab.layers.corner_conv import PADDING_MODES
from keras_sspcab.layers.masked_conv import MaskedConv2D, MaskedConv3D

_CONVOLUTIONS = {conv.rank: conv for conv in (MaskedConv2D, MaskedConv3D)}


class PredictiveBlock(EffectLayer, WeightedLayer):
    """A masked convolution, then gates; how far it is off becomes a loss.

    A subclass says which gates there are. The arguments are described where
    users meet them, in `SSPCABLayer`; `delta` is the threshold of the Huber
    loss.
    """

    config_names: ClassVar[tuple[str, ...]] = (
        "kernel_size",
        "dilation_rate",
        "mask_size",
        "loss_weight",
        "attention",
        "padding_mode",
        "activation",
        "stop_gradient",
        "initializer",
        "per_corner_activation",
    )
    attentions: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        kernel_size: int,
        dilation_rate: int,
        mask_size: int,
        loss: Any,
        loss_weight: float,
        attention: str | None,
        delta: float = 1.0,
        padding_mode: str = "zeros",
        activation: Any = "relu",
        stop_gradient: bool = False,
        per_corner_activation: bool = False,
        initializer: str = "keras",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_size = standardize_int(kernel_size, "kernel_size", 1)
        self.dilation_rate = standardize_int(dilation_rate, "dilation_rate", 0)
        self.mask_size = standardize_int(mask_size, "mask_size", 1)
        self._loss_function = resolve_loss(loss, delta)
        self.loss = loss
        self.loss_weight = standardize_number(loss_weight, "loss_weight")
        if attention is not None:
            attention = standardize_choice(
                attention, self.attentions, "attention"
            )
        self.attention = attention
        self.padding_mode = standardize_choice(
            padding_mode, PADDING_MODES, "padding_mode"
        )
        self.activation = keras.activations.get(activation)
        self.stop_gradient = bool(stop_gradient)
        self.initializer = standardize_choice(
            initializer, INITIALIZERS, "initializer"
        )
        self.per_corner_activation = bool(per_corner_activation)
        # Its weight may change later.
        self._loss_report = (
            None
            if self._loss_function is None
            else BlockLossReport(f"{self.name}_loss")
        )

    @property
    def adds_loss(self) -> bool:
        """Whether the layer adds a loss term at all."""
        return self._loss_function is not None and self.loss_weight > 0

    @property
    def metrics(self) -> list[Any]:
        """The metrics of the layer: `sspcab_loss` where it adds a loss."""
        report = self._loss_report if self.adds_loss else None
        return super().metrics + ([] if report is None else [report.total])

    @property
    def own_loss_metric(self) -> keras.metrics.Metric | None:
        """The term of this block alone, `NAME_loss`; None if it adds none."""
        report = self._loss_report if self.adds_loss else None
        return None if report is None else report.own

    def _build_gates(self, input_shape: Shape) -> None:
        """Builds what scales the prediction, where `attention` asks for it."""
        raise NotImplementedError

    @property
    def _gates(self) -> Sequence[keras.layers.Layer | None]:
        """The gates in their order; None for one that there is not."""
        raise NotImplementedError

    def build(self, input_shape: Shape) -> None:
        channels = self._fix_channels(input_shape)
        with self.building_parts():
            self.masked_conv = _CONVOLUTIONS[self.rank](
                channels,
                kernel_size=self.kernel_size,
                dilation_rate=self.dilation_rate,
                mask_size=self.mask_size,
                padding_mode=self.padding_mode,
                activation=self.activation,
                per_corner_activation=self.per_corner_activation,
                name="masked_conv",
                **self._conv_arguments(channels),
            )
            self.masked_conv.build(input_shape)
            self._build_gates(input_shape)

    def compute(self, inputs: Any) -> Any:
        """Returns the block's prediction of its input; adds no loss."""
        outputs = self.masked_conv(inputs)
        for gate in self._gates:
            if gate is not None:
                outputs = gate(outputs)
        return outputs

    def conclude(self, inputs: Any, outputs: Any, training: bool) -> None:
        """Adds the loss of what was predicted."""
        loss, report = self._loss_function, self._loss_report
        is_on = self.adds_loss and auxiliary_losses_enabled()
        if loss and report and is_on:
            self.check_single_pass()
            # Both operands: a float16 difference would overflow when squared.
            target = at_least_float32(inputs)
            if self.stop_gradient:
                target = ops.stop_gradient(target)
            term = loss(target, at_least_float32(outputs))
            # A replica without a sample, whose mean is NaN, has no loss.
            num_samples = ops.shape(inputs)[0]
            term = ops.where(ops.greater(num_samples, 0), term, 0.0)
            # Keras adds it to losses of this dtype.
            term = ops.cast(term, keras.config.floatx())
            term = (self.loss_weight * auxiliary_loss_scale()) * term
            self.add_loss(term)
            report.note(term, num_samples)

    def _conv_arguments(self, channels: int) -> dict[str, Any]:
        arguments = self._child_arguments()
        if self.initializer == "authors":
            # Each corner is a convolution of its own there.
            drawn = pytorch_initializers(channels * self.kernel_size**self.rank)
            default = keras.initializers.GlorotUniform
            if not isinstance(self.kernel_initializer, default):
                del drawn["kernel_initializer"]
            arguments |= drawn
        return arguments

    def _child_arguments(self) -> dict[str, Any]:
        arguments = super()._child_arguments()
        return {"data_format": self.data_format, **arguments}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "loss": serialize_loss(self.loss)}
