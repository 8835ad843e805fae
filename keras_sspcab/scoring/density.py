"""Densities of embeddings: how far from the normal ones is another?"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.checks import standardize_int, standardize_number
from keras_sspcab.layers.base import Shape
from keras_sspcab.scoring.base import FittedLayer


@keras.saving.register_keras_serializable(package="keras_sspcab")
class Density(FittedLayer):
    """Base of layers that score embeddings against those of normal data.

    Before the first `fit` a density scores by the distance to the origin.

    Input shape:
        `(samples, dimensions)`.

    Output shape:
        `(samples,)`, float32; larger is less normal.
    """

    #: How many normal embeddings it takes at least.
    fewest = 2

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def fit(self, embeddings: Any) -> None:
        """Fits to normal embeddings `(samples, dimensions)`, some at least."""
        embeddings = np.asarray(embeddings, dtype="float64")
        dimensions = self.input_spec.axes.get(-1)
        if embeddings.ndim != 2 or embeddings.shape[1] != dimensions:
            raise ValueError(
                f"{self.name} takes embeddings of shape (samples, "
                f"{dimensions}). Received: shape {embeddings.shape}"
            )
        if len(embeddings) < self.fewest:
            raise ValueError(
                f"{self.name} needs the embeddings of at least {self.fewest} "
                "normal images, besides those to calibrate on. Received: "
                f"{len(embeddings)}. Add images, or take a model for which "
                "one is enough: multiscale_padim, padim or patchcore"
            )
        self.require_finite(embeddings)
        self._fit(embeddings)

    def _fit(self, embeddings: np.ndarray) -> None:
        raise NotImplementedError

    def gradient(self, embeddings: Any) -> Any:
        """Derivative of the scores by the embeddings, in closed form."""
        raise NotImplementedError

    def build(self, input_shape: Shape) -> None:
        self._add_states(*self.fix_sizes(input_shape, -1))

    def _add_states(self, size: int) -> None:
        raise NotImplementedError

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[:1])


@keras.saving.register_keras_serializable(package="keras_sspcab")
class GaussianDensity(Density):
    """Mahalanobis distance to the mean of the normal embeddings.

    That is the square root of `(x - mean)^T P (x - mean)`, which orders samples
    as the density of a Gaussian with the covariance `P^-1` does. The covariance
    is shrunk towards a multiple of the identity as Ledoit and Wolf do, without
    which few images in many dimensions give none that can be inverted.

    References:
    - Rippel et al., "Modeling the distribution of normal data in pre-trained
      deep features for anomaly detection", ICPR 2020
    - [Li et al., CVPR 2021](https://arxiv.org/abs/2104.04015), section 2.3; the
      shrinkage is not mentioned there.

    Arguments and shapes are those of `Density`.

    Example:
    >>> normal = np.random.default_rng(0).normal(size=(200, 4))
    >>> density = GaussianDensity()
    >>> density.build((None, 4))
    >>> density.fit(normal)
    >>> bool(density(10 + normal[:1]) > density(normal[:1]))
    True
    """

    # Of two nothing is shrunk, and nothing can be inverted.
    fewest = 3

    def _add_states(self, size: int) -> None:
        self.mean = self.add_state("mean", size)
        self.whitening = self.add_state(
            "whitening", size, size, initializer=keras.initializers.Identity()
        )

    def _fit(self, embeddings: np.ndarray) -> None:
        from sklearn.covariance import LedoitWolf

        covariance = LedoitWolf().fit(embeddings)
        if not np.trace(covariance.covariance_) > 0:
            raise ValueError(
                f"{self.name} received {len(embeddings)} equal embeddings, "
                "which have no spread to measure by. Are the images all the "
                "same, or has the training collapsed?"
            )
        # The product of a whitened difference with itself is the distance.
        root = np.linalg.cholesky(covariance.precision_)
        self.mean.assign(covariance.location_)
        self.whitening.assign(root)

    def call(self, inputs: Any) -> Any:
        whitened = ops.matmul(inputs - self.mean, self.whitening)
        return ops.sqrt(ops.sum(ops.square(whitened), axis=-1))

    def gradient(self, embeddings: Any) -> Any:
        whitened = ops.matmul(embeddings - self.mean, self.whitening)
        distance = ops.sqrt(
            ops.sum(ops.square(whitened), axis=-1, keepdims=True)
        )
        slope = ops.matmul(whitened, ops.transpose(self.whitening))
        # At the mean itself the slope is zero as well.
        return slope / ops.maximum(distance, keras.config.epsilon())


@keras.saving.register_keras_serializable(package="keras_sspcab")
class KernelDensity(Density):
    """Negative logarithm of a kernel density estimate with Gaussian kernels.

    `-log(mean_i exp(-|x - x_i|^2 / (2 h^2)))` plus the logarithm of the norm of
    a kernel, over normal embeddings `x_i` and with the bandwidth `h`.

    Args:
        bandwidth: Standard deviation of the kernels. Defaults to 1.
        capacity: Largest number of embeddings to keep; of more, a random
            subset. Defaults to 1024.
        seed: Seed of the choice.

    Shapes are those of `Density`.

    Example:
    >>> density = KernelDensity(bandwidth=0.5)
    >>> density.build((None, 4))
    >>> density.fit(np.zeros((3, 4)))
    >>> bool(density(np.ones((1, 4))) > density(np.zeros((1, 4))))
    True
    """

    config_names = ("bandwidth", "capacity", "seed")

    def __init__(
        self,
        bandwidth: float = 1.0,
        capacity: int = 1024,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.bandwidth = standardize_number(bandwidth, "bandwidth", excluded=0)
        self.capacity = standardize_int(capacity, "capacity", 2)
        self.seed = standardize_int(seed, "seed", 0)

    def _add_states(self, size: int) -> None:
        self.references = self.add_state("references", self.capacity, size)
        # Shares of the references in the density; unused ones have none.
        self.shares = self.add_state(
            "shares",
            self.capacity,
            initializer=keras.initializers.Constant(1.0 / self.capacity),
        )

    def _fit(self, embeddings: np.ndarray) -> None:
        if len(embeddings) > self.capacity:
            rng = np.random.default_rng(self.seed)
            chosen = rng.choice(len(embeddings), self.capacity, replace=False)
            embeddings = embeddings[np.sort(chosen)]
        count = len(embeddings)
        references = np.zeros((self.capacity, embeddings.shape[1]))
        references[:count] = embeddings
        shares = np.zeros(self.capacity)
        shares[:count] = 1.0 / count
        self.references.assign(references)
        self.shares.assign(shares)

    def call(self, inputs: Any) -> Any:
        kernels, largest = self._kernels(inputs)
        dimensions = inputs.shape[-1]
        log_norm = 0.5 * dimensions * math.log(2 * math.pi * self.bandwidth**2)
        return log_norm - ops.log(ops.sum(kernels, axis=-1)) - largest

    def gradient(self, embeddings: Any) -> Any:
        kernels, _ = self._kernels(embeddings)
        weights = kernels / ops.sum(kernels, axis=-1, keepdims=True)
        center = ops.matmul(weights, self.references)
        return (embeddings - center) / self.bandwidth**2

    def _kernels(self, x: Any) -> tuple[Any, Any]:
        """Weighted kernels at each sample, and the exponent taken out of them.

        That is the largest one, for kernels far away.
        """
        center = ops.matmul(self.shares[None, :], self.references)
        # About a common center, where the difference of squares is exact.
        x, references = x - center, self.references - center
        squares = (
            ops.sum(ops.square(x), axis=-1, keepdims=True)
            + ops.sum(ops.square(references), axis=-1)
            - 2 * ops.matmul(x, ops.transpose(references))
        )
        exponents = -ops.maximum(squares, 0.0) / (2 * self.bandwidth**2)
        unused = ops.cast(self.shares == 0, exponents.dtype)
        exponents = exponents - 1e30 * unused
        largest = ops.max(exponents, axis=-1, keepdims=True)
        return self.shares * ops.exp(exponents - largest), largest[:, 0]
