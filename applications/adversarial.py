"""Training of frames against a discriminator."""

from typing import Any

import keras
from keras import layers, ops

# Keras has no public name for what it does under distribution strategies.
from keras.src.losses.loss import unscale_loss_for_distribution

from keras_sspcab.hosts.detector import Untracked
from keras_sspcab.hosts.frames import FrameModel
from keras_sspcab.hosts.graph import LAST, signed
from keras_sspcab.losses import least_squares


class AdversarialModel(FrameModel):
    """Base of hosts whose predictions are to pass for true frames.

    Each step trains the discriminator, to tell the predictions from the true
    frames, and then the generator, which is all the rest, on the same batch.
    Weights and optimizer of the discriminator are parts of the model, of its
    files and its checkpoints; scores and exports do without.

    A host calls `set_discriminator` in its constructor, puts the judgment of
    its predictions among its `loss_terms`, and overrides
    `default_discriminator_optimizer`.

    Attributes:
        discriminator: A model from frames in [-1, 1] to judgments, 1 for true
            ones, or None.
        discriminator_optimizer: Its optimizer, once the model is compiled.
    """

    discriminator: Any

    def set_discriminator(self, discriminator: keras.Model | None) -> None:
        """Takes the discriminator, or none."""
        self.discriminator = discriminator
        self._discriminator_loss = Untracked(
            keras.metrics.Mean(name="discriminator_loss")
        )
        self._given_optimizer = Untracked(None)

    def default_discriminator_optimizer(
        self, learning_rate: float | None = None, steps: int | None = None
    ) -> keras.optimizers.Optimizer:
        """That of the discriminator; arguments as in `default_optimizer`."""
        raise NotImplementedError

    @property
    def optimized_variables(self) -> list[Any]:
        """The variables of the generator."""
        if self.discriminator is None:
            return self.trainable_variables
        others = {id(v) for v in self.discriminator.trainable_variables}
        return [v for v in self.trainable_variables if id(v) not in others]

    def discriminator_loss(self, x: Any, y_pred: dict[str, Any]) -> Any:
        """Returns `mean (D(target) - 1)^2 / 2 + mean D(prediction)^2 / 2`."""
        prediction = signed(y_pred["prediction"])
        real = self.discriminator(signed(x[:, -1]))
        false = self.discriminator(ops.stop_gradient(prediction))
        terms = least_squares(1.0, real) + least_squares(0.0, false)
        # A loss already: compared with zeros, it is averaged as Keras does,
        # over no sample and over replicas too.
        return keras.losses.MeanAbsoluteError()(
            ops.zeros_like(terms)[:, None], terms[:, None]
        )

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        if self.discriminator is not None and not training:
            loss = self.discriminator_loss(x, y_pred)
            self._report(self._discriminator_loss.value, loss, x)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def _report(self, metric: Any, loss: Any, x: Any) -> None:
        metric.update_state(
            unscale_loss_for_distribution(loss), sample_weight=ops.shape(x)[0]
        )

    @property
    def metrics(self) -> list[Any]:
        """The metrics of the base, and the loss of the discriminator."""
        collected = super().metrics
        if self.compiled and self.discriminator is not None:
            collected.append(self._discriminator_loss.value)
        return collected

    def compile(
        self,
        optimizer: Any = None,
        loss: Any = None,
        *,
        discriminator_optimizer: Any = None,
        learning_rate: float | None = None,
        steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Configures training, by default as the paper does.

        Without a `discriminator_optimizer` that of the paper is taken, whose
        rate changes with `learning_rate`.
        """
        super().compile(
            optimizer, loss, learning_rate=learning_rate, steps=steps, **kwargs
        )
        if self.discriminator is None:
            return
        if discriminator_optimizer is None:
            discriminator_optimizer = self.default_discriminator_optimizer(
                learning_rate, steps
            )
        discriminator_optimizer = keras.optimizers.get(discriminator_optimizer)
        self._given_optimizer = Untracked(discriminator_optimizer)
        scaling = keras.optimizers.LossScaleOptimizer
        if isinstance(self.optimizer, scaling) and not isinstance(
            discriminator_optimizer, scaling
        ):
            discriminator_optimizer = scaling(discriminator_optimizer)
        discriminator_optimizer.build(self.discriminator.trainable_variables)
        self.discriminator_optimizer = discriminator_optimizer

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        if config and self.discriminator is not None:
            config["discriminator_optimizer"] = (
                keras.saving.serialize_keras_object(self._given_optimizer.value)
            )
        return config

    def make_train_function(self, force: bool = False) -> Any:
        """Refuses backends that it cannot train on, before it begins."""
        is_tensorflow = keras.config.backend() == "tensorflow"
        if self.discriminator is not None and not is_tensorflow:
            raise ValueError(
                "Training against a discriminator needs the TensorFlow backend "
                f"of Keras. Received: {keras.config.backend()!r}. Set "
                "KERAS_BACKEND=tensorflow, or build the model with "
                "adversarial_weight=0"
            )
        return super().make_train_function(force)

    def train_step(self, *args: Any) -> Any:
        """Trains the discriminator for one step, then the generator."""
        if self.discriminator is None:
            return super().train_step(*args)
        import tensorflow as tf

        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(*args)
        variables = self.optimized_variables
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            with tape.stop_recording():
                self._train_discriminator(x, y_pred)
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        self._report(self._loss_tracker, loss, x)
        gradients = tape.gradient(scaled, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def _train_discriminator(self, x: Any, y_pred: dict[str, Any]) -> None:
        import tensorflow as tf

        optimizer = self.discriminator_optimizer
        variables = self.discriminator.trainable_variables
        with tf.GradientTape() as tape:
            loss = self.discriminator_loss(x, y_pred)
            scaled = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._report(self._discriminator_loss.value, loss, x)


def patch_discriminator(
    channels: int, base_width: int = 128, name: str = "discriminator"
) -> keras.Model:
    """Builds the network that tells true frames from predicted ones.

    Five 4x4 convolutions, each behind a reflecting margin of two pixels, the
    first three with stride 2: each output is the judgment in (0, 1) of a patch
    of the frame, which has 16 pixels a side at least. No normalization.

    References:
    - Isola et al., CVPR 2017 (pix2pix), as configured in the code of
      [Liu et al., CVPR 2018](https://arxiv.org/abs/1712.09867)
    """
    filters = [base_width, 2 * base_width, 4 * base_width, 4 * base_width, 1]
    frame = keras.Input((None, None, channels), name="frame")
    x: Any = frame
    for index, (number, stride) in enumerate(
        zip(filters, (2, 2, 2, 1, 1), strict=True), 1
    ):
        margin = ((0, 0), (2, 2), (2, 2), (0, 0))
        conv = layers.Conv2D(
            number, 4, strides=stride, name=f"conv{index}", **LAST
        )
        x = conv(ops.pad(x, margin, mode="reflect"))
        if index < len(filters):
            x = layers.LeakyReLU(0.2, name=f"relu{index}")(x)
    judgment = layers.Activation("sigmoid", dtype="float32", name="judgment")
    return keras.Model(frame, judgment(x), name=name)
