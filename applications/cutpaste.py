"""CutPaste: a classifier of cut-and-paste images, scored by a density."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_sspcab.applications._arguments import check_input_shape, check_places
from keras_sspcab.applications._batches import image_batches
from keras_sspcab.applications.base import AnomalyModel
from keras_sspcab.applications.resnet import PLACES, resnet18
from keras_sspcab.applications.resnet_weights import load_imagenet_weights
from keras_sspcab.layers import CropLike
from keras_sspcab.layers._arguments import standardize_choice, standardize_int
from keras_sspcab.scoring import (
    Calibration,
    EmbeddingScore,
    GaussianDensity,
    GradCAM,
    KernelDensity,
    MapPooling,
    PatchEmbedding,
    ReceptiveFieldUpsampling,
)

#: Classes that the network tells apart, by variant.
CLASSES = {"3way": 3, "cutpaste": 2, "scar": 2, "union": 2}
DENSITIES = {"gaussian": GaussianDensity, "kde": KernelDensity}
LOCALIZATIONS = ("gradcam", "patch")

# Statistics of ImageNet, which files with its weights expect.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Embeddings of patches that a density is fitted to, at most.
_MAX_PATCHES = 20_000


@keras.saving.register_keras_serializable(package="keras_sspcab")
class CutPaste(AnomalyModel):
    """Scores by how unusual the features of a self-supervised network are.

    A ResNet-18 learns to tell normal images from images into which a part of
    themselves has been pasted at another place, as a large patch or a thin
    scar; `fit` takes normal images and pastes. Its pooled features of the
    normal training images are then described by a density, and the score of an
    image is its distance. The map is a Grad-CAM of that score, or comes from
    scoring all patches.

    References:
    - [Li et al., CVPR 2021](https://arxiv.org/abs/2104.04015). Mean image
      AUROC over MVTec AD with three classes: 95.2 %, with an ensemble of five
      96.1 %; pixel AUROC 88.3 % with Grad-CAM, 96.0 % with patches.
    - [Ristea et al., CVPR 2022](https://arxiv.org/abs/2111.09099), Table 2:
      with the block 96.1 % and 96.9 %.

    Open points: there is no code of the authors. The size of the head, the
    jitter and translation of whole images, the shrinkage of the covariance and
    whether features are scaled to unit length are not in the paper; the
    defaults are those of the re-implementation Runinho/pytorch-cutpaste, which
    reached 91.0 %. The author of the block puts it at the penultimate
    convolution of the network; that its loss counts on all three kinds of
    images is a guess. Of aligned objects, the paper fits one Gaussian at each
    place of the patches; at full size these would take 3.4 GB, and one is
    shared here.

    Args:
        input_shape: `(height, width, channels)` with 1 or 3 channels; sides of
            at least 32, or None. Defaults to the paper's `(256, 256, 3)`.
        sspcab: `"penultimate"` (the default; instead of the first convolution
            of the last residual block), `"layer3"` (an additional layer before
            the last stage), both, or None.
        variant: What is told apart from normal images: `"3way"` (the default;
            patches and scars, as two classes), `"cutpaste"` (patches),
            `"scar"`, or `"union"` (both, as one class).
        base_width: Channels of the first stage of the trunk, doubled three
            times. Defaults to 64, ResNet-18; 16 trains on a CPU.
        head_layers: Hidden layers of the head as wide as the features, before
            one of a quarter of it. Defaults to 1.
        density: `"gaussian"` (Mahalanobis distance, the default) or `"kde"`.
        normalize_embeddings: Whether features are scaled to unit length before
            the density.
        localization: `"gradcam"`, or `"patch"`: all patches of an image are
            scored and the largest value of the map is the score of the image.
            Such a model is trained on crops of 64x64: `input_shape=(None, None,
            3)`. Feature maps of crops are 2x2, of patches 1x1: the block at its
            default place sees nothing but its padding there, at `"layer3"`
            little else; the SSPCAB paper has figures of whole images only.
            Predict few images at a time, each is thousands of patches.
        patch_size: Side of the patches, in pixels. Defaults to 32.
        patch_stride: Distance between two of them. Defaults to 4.
        weight_decay: L2 decay of all kernels, as a part of the loss. Defaults
            to 3e-5.
        jitter: Greatest change of brightness, contrast, saturation and hue, of
            images and of patches. Defaults to 0.1.
        translation: Greatest shift of whole images in training, as a share of
            their sides. Defaults to 0.
        weights: File with ImageNet weights of a ResNet-18, see
            `load_imagenet_weights`. None (the default) starts at random, as the
            paper does. Read once, here; the path is not kept.
        sspcab_options: Arguments of the `SSPCABLayer`s, such as
            `{"loss_weight": 0.1}`.
        calibration: A `Calibration`; set by `calibrate`.
        name: Name of the model.

    Outputs besides the shared ones: `embedding`, the pooled features, and
    `logits` of the classes, normal first.

    Raises:
        ValueError: If an argument is out of its range, or `weights` do not fit.

    Example:
    >>> model = CutPaste(input_shape=(128, 128, 3), base_width=16)
    >>> model.compile(steps=1000)
    >>> model.fit(normal_images)
    """

    def __init__(
        self,
        input_shape: Sequence[int | None] = (256, 256, 3),
        sspcab: str | Sequence[str] | None = "penultimate",
        variant: str = "3way",
        base_width: int = 64,
        head_layers: int = 1,
        density: str = "gaussian",
        normalize_embeddings: bool = True,
        localization: str = "gradcam",
        patch_size: int = 32,
        patch_stride: int = 4,
        weight_decay: float = 3e-5,
        jitter: float = 0.1,
        translation: float = 0.0,
        weights: str | None = None,
        sspcab_options: dict[str, Any] | None = None,
        calibration: Calibration | dict[str, Any] | None = None,
        name: str = "cutpaste",
    ) -> None:
        # A scar must fit into the image.
        shape = check_input_shape(input_shape, minimum=32)
        if shape[-1] not in (1, 3):
            raise ValueError(
                "Images must have 1 (grey) or 3 (colour) channels. "
                f"Received: input_shape={shape}"
            )
        places = check_places(sspcab, PLACES)
        variant = standardize_choice(variant, tuple(CLASSES), "variant")
        density = standardize_choice(density, tuple(DENSITIES), "density")
        localization = standardize_choice(
            localization, LOCALIZATIONS, "localization"
        )
        width = standardize_int(base_width, "base_width", 1)
        head_layers = standardize_int(head_layers, "head_layers", 0)
        for value, key in ((weight_decay, "weight_decay"), (jitter, "jitter")):
            if not 0 <= value < 1:
                raise ValueError(
                    f"`{key}` must be at least 0 and below 1. "
                    f"Received: {key}={value}"
                )
        if localization == "patch":
            _check_patches(shape, patch_size)

        # === Functional model ===
        # The derivative of l2 * w^2 is that of a decay when l2 is its half.
        regularizer = keras.regularizers.L2(weight_decay / 2)
        trunk = _trunk(shape, width, places, sspcab_options, regularizer)
        if weights is not None:
            load_imagenet_weights(trunk, weights)
        image = keras.Input(shape, name="image")
        features = trunk(image)
        embedding = layers.GlobalAveragePooling2D(
            data_format="channels_last", dtype="float32", name="embedding"
        )(features)
        logits = _head(
            embedding, head_layers, 8 * width, CLASSES[variant], regularizer
        )
        scoring = EmbeddingScore(
            DENSITIES[density](name="density"),
            normalize_embeddings,
            name="embedding_score",
        )
        patches = None
        if localization == "patch":
            patches = PatchEmbedding(
                trunk, patch_size, patch_stride, name="patch_embedding"
            )
            patch_scores, _ = scoring(patches(image))
            raw_map = ReceptiveFieldUpsampling(
                patch_size, patch_stride, name="patch_map"
            )(patch_scores, image)
            raw_score = MapPooling("max", name="pooling")(raw_map)
        else:
            raw_score, slope = scoring(embedding)
            raw_map = GradCAM(name="gradcam")(features, slope)
            raw_map = _enlarge(raw_map, image)
        super().__init__(
            inputs=image,
            outputs=self.detector_outputs(
                raw_score,
                raw_map,
                calibration,
                embedding=embedding,
                logits=logits,
            ),
            name=name,
        )
        # As functions: Keras would take the models for parts of this one.
        self._classify = keras.Model(image, {"logits": logits}).__call__
        self._embed = keras.Model(image, embedding).predict_on_batch
        self._patches = patches

        # === Config ===
        self.arguments = {
            "input_shape": shape,
            "sspcab": places or None,
            "variant": variant,
            "base_width": width,
            "head_layers": head_layers,
            "density": density,
            "normalize_embeddings": bool(normalize_embeddings),
            "localization": localization,
            "patch_size": patch_size,
            "patch_stride": patch_stride,
            "weight_decay": weight_decay,
            "jitter": jitter,
            "translation": translation,
            "sspcab_options": sspcab_options,
        }

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> dict[str, Any]:
        if training:
            # Scores are of no use yet, and patches would take most of the time.
            return self._classify(inputs, training=True)
        return super().call(inputs, training=training, mask=mask)

    def default_optimizer(
        self, learning_rate: float | None = None, steps: int | None = None
    ) -> keras.optimizers.Optimizer:
        """SGD with momentum 0.9 at 0.03, in one cosine cycle down to 0."""
        rate: Any = learning_rate or 0.03
        if steps is not None:
            rate = keras.optimizers.schedules.CosineDecay(rate, steps)
        return keras.optimizers.SGD(rate, momentum=0.9)

    def default_losses(self) -> dict[str, Any]:
        """The cross-entropy of the classes."""
        return {
            "logits": keras.losses.SparseCategoricalCrossentropy(
                from_logits=True
            )
        }

    def training_targets(self, x: Any, y: Any) -> dict[str, Any]:
        """The classes of the images."""
        if not isinstance(y, dict) or set(y) != {"logits"}:
            raise ValueError(
                "CutPaste trains on pairs of images and a dict with `logits`, "
                "their classes. Pass normal images alone to paste into them. "
                f"Received targets: {sorted(y) if isinstance(y, dict) else y!r}"
            )
        return y

    def prepare_training_data(self, data: Any) -> Any:
        """Cuts and pastes: each image becomes one of each class."""
        from keras_sspcab.data import cutpaste_views

        return cutpaste_views(
            data,
            self.arguments["variant"],
            jitter=self.arguments["jitter"],
            translation=self.arguments["translation"],
            seed=np.random.randint(2**31),
        )

    def fit_scoring(self, data: Any) -> None:
        """Fits the density to the features of normal images, or patches."""
        parts = [self._embeddings(images) for images in image_batches(data)]
        if not parts:
            raise ValueError(
                f"{self.name} needs normal images to fit its density to. "
                "Received: none"
            )
        embeddings = np.concatenate(parts)
        if self._patches is not None and len(embeddings) > _MAX_PATCHES:
            rng = np.random.default_rng(0)
            chosen = rng.choice(len(embeddings), _MAX_PATCHES, replace=False)
            embeddings = embeddings[chosen]
        self.get_layer("embedding_score").fit(embeddings)
        # Compiled functions may hold what was fitted before as constants.
        self.predict_function = None
        self.test_function = None

    def _embeddings(self, images: Any) -> np.ndarray:
        """Features of images, or of patches that overlap by a half."""
        if self._patches is None:
            return np.asarray(self._embed(images))
        stride = max(self.arguments["patch_size"] // 2, 1)
        patches = self._patches(ops.convert_to_tensor(images), stride=stride)
        flat = ops.reshape(patches, (-1, patches.shape[-1]))
        return np.asarray(ops.convert_to_numpy(flat), "float32")


def _trunk(
    shape: tuple[int | None, ...],
    width: int,
    places: tuple[str, ...],
    sspcab_options: dict[str, Any] | None,
    regularizer: Any,
) -> keras.Model:
    """The convolutions as a model of their own, for images and patches."""
    # Any size: patches have another.
    image = keras.Input((None, None, shape[-1]))
    mean, std = np.array(_MEAN), np.array(_STD)
    if shape[-1] == 1:
        mean, std = mean.mean(keepdims=True), std.mean(keepdims=True)
    x = layers.Rescaling(
        (1 / std).tolist(), (-mean / std).tolist(), name="standardisation"
    )(image)
    x = resnet18(x, width, places, sspcab_options, regularizer)
    return keras.Model(image, x, name="trunk")


def _head(
    x: Any, hidden: int, units: int, classes: int, regularizer: Any
) -> Any:
    def dense(x: Any, units: int, name: str) -> Any:
        return layers.Dense(units, kernel_regularizer=regularizer, name=name)(x)

    for index, size in enumerate([units] * hidden + [units // 4]):
        x = dense(x, size, f"head{index}")
        x = layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, name=f"head{index}_bn"
        )(x)
        x = layers.ReLU(name=f"head{index}_relu")(x)
    x = dense(x, classes, "classes")
    return layers.Activation("linear", dtype="float32", name="logits")(x)


def _enlarge(raw_map: Any, image: Any) -> Any:
    """Resizes a map of features to the size of the image."""
    x = ops.expand_dims(raw_map, -1)
    # One place of the features stands for 32 pixels, the last ones for fewer.
    x = layers.UpSampling2D(
        32,
        interpolation="bilinear",
        data_format="channels_last",
        dtype="float32",
        name="enlarged",
    )(x)
    return CropLike(dtype="float32", name="map")(ops.squeeze(x, -1), image)


def _check_patches(shape: tuple[int | None, ...], patch_size: int) -> None:
    for side in shape[:2]:
        if side is not None and side < patch_size:
            raise ValueError(
                "Images must not be smaller than their patches. Received: "
                f"input_shape={shape}, patch_size={patch_size}"
            )
