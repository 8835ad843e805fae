"""CutPaste: a classifier of cut-and-paste images, scored by a density."""

import os
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_sspcab.applications.cutpaste_network import (
    PLACES,
    explain,
    head,
    pool,
    pretrained_trunk,
    resnet_trunk,
)
from keras_sspcab.backbones import describe_weights
from keras_sspcab.checks import standardize_choice, standardize_int
from keras_sspcab.hosts.arguments import check_input_shape, check_places
from keras_sspcab.hosts.base import (
    AnomalyModel,
    HostGuide,
    PublishedEvaluation,
    Settings,
)
from keras_sspcab.hosts.detector import Untracked
from keras_sspcab.hosts.published import (
    array_of,
    load_arrays,
    read_checkpoint,
    sides,
    swap_colors,
    with_blocks,
)
from keras_sspcab.hosts.registry import register_application
from keras_sspcab.scoring import (
    Calibration,
    EmbeddingScore,
    GaussianDensity,
    KernelDensity,
    MapPooling,
    PatchEmbedding,
    ReceptiveFieldUpsampling,
)

#: Classes that the network tells apart, by variant.
CLASSES = {"3way": 3, "cutpaste": 2, "scar": 2, "union": 2}
DENSITIES = {"gaussian": GaussianDensity, "kde": KernelDensity}
LOCALIZATIONS = ("gradcam", "patch")

#: The trunk that is trained from scratch.
RESNET = "resnet18"

# The trunk in checkpoints of the public PyTorch version.
_TRUNK_NAMES = {
    r"(conv1|bn1)": r"resnet18.\1",
    r"layer(\d)_(\d)_(conv\d|bn\d)": r"resnet18.layer\1.\2.\3",
    r"layer(\d)_(\d)_downsample_(\d)": r"resnet18.layer\1.\2.downsample.\3",
    "sspcab_penultimate": "resnet18.layer4.1.conv1",
    "classes": "out",
}
_BLOCKS = {"penultimate": _TRUNK_NAMES["sspcab_penultimate"]}

# Embeddings of patches that a density is fitted to, at most.
_MAX_PATCHES = 20_000


@register_application("cutpaste")
@keras.saving.register_keras_serializable(package="keras_sspcab")
class CutPaste(AnomalyModel):
    """Scores by how unusual the features of a self-supervised network are.

    A network learns to tell normal images from images into which a part of
    themselves has been pasted at another place, as a large patch or a thin
    scar; `fit` takes normal images and pastes. Its pooled features of the
    normal training images are then described by a density, and the score of an
    image is its distance. The map is a Grad-CAM of that score, or comes from
    scoring all patches.

    The network is a ResNet-18 that is trained from scratch, or with
    `backbone="efficientnet_lite0"` (or another) the paper's variant, a
    pretrained one, whose features of several depths are pooled. By default it
    keeps its weights, and the head and the block are all that is trained: quick
    on a CPU, but without a block the score is that of the pretrained features,
    whatever is learned.

    References:
    - [Li et al., CVPR 2021](https://arxiv.org/abs/2104.04015). Mean image
      AUROC over MVTec AD with three classes: 95.2 %, with an ensemble of five
      96.1 %; pixel AUROC 88.3 % with Grad-CAM, 96.0 % with patches.
    - [Ristea et al., CVPR 2022](https://arxiv.org/abs/2111.09099), Table 2:
      with the block 96.1 % and 96.9 %.
    - Rippel et al., "Modeling the distribution of normal data in pre-trained
      deep features for anomaly detection", ICPR 2020, for frozen networks.

    Args:
        input_shape: `(height, width, channels)` with 1 or 3 channels; sides of
            at least 32, or None. Defaults to the paper's `(256, 256, 3)`.
        sspcab: `"penultimate"` (the default; instead of the first convolution
            of the last residual block; with a pretrained network in a branch
            behind its last stage), `"layer3"` (an additional layer before the
            last stage, of a ResNet-18 only), both, or None.
        variant: What is told apart from normal images: `"3way"` (the default;
            patches and scars, as two classes), `"cutpaste"` (patches),
            `"scar"`, or `"union"` (both, as one class).
        backbone: `"resnet18"` (the default), or a pretrained network, one of
            `keras_sspcab.backbones.available_backbones()`.
        freeze_backbone: Whether a pretrained network keeps its weights, the
            default; else all but its normalization is trained, at a 300th of
            the rate (by SGD; others take no notice of the factor). A ResNet-18
            is always trained.
        base_width: Channels of the first stage of the ResNet-18, doubled three
            times. Defaults to 64; 16 trains on a CPU.
        head_layers: Hidden layers of the head as wide as the features, before
            one of a quarter of it. Defaults to 1.
        density: `"gaussian"` (Mahalanobis distance, the default) or `"kde"`.
        normalize_embeddings: Whether features are scaled to unit length before
            the density. None (the default) does so for a ResNet-18 alone.
        localization: `"gradcam"`, or `"patch"`: all patches of an image are
            scored and the largest value of the map is the score of the image.
            Such a model is trained on crops of 64x64: `input_shape=(None, None,
            3)`. Predict few images at a time, each is thousands of patches.
        patch_size: Side of the patches, in pixels. Defaults to 32.
        patch_stride: Distance between two of them. Defaults to 4.
        weight_decay: L2 decay of all kernels, as a part of the loss. Defaults
            to 3e-5.
        jitter: Greatest change of brightness, contrast, saturation and hue, of
            images and of patches. Defaults to 0.1.
        translation: Greatest shift of whole images in training, as a share of
            their sides. Defaults to 0.
        weights: File with ImageNet weights: of a ResNet-18, see
            `load_imagenet_weights`, or of a pretrained network, see
            `load_backbone`. None starts at random. `"auto"` (the default) is
            None for a ResNet-18, as in the paper, and `"imagenet"` for a
            pretrained network. Read once, here; the path is not kept.

    All other arguments are those of `AnomalyModel`.

    Outputs besides the shared ones: `embedding`, the pooled features, and
    `logits` of the classes, normal first.

    Raises:
        ValueError: If `weights` do not fit.
        ImportError: If the package with the weights is not installed.

    Example:
    >>> model = CutPaste((64, 64, 3), base_width=2)
    >>> model.output["logits"].shape
    (None, 3)
    """

    # Pretrained and frozen: two minutes on a CPU. The width is for those who
    # choose the ResNet-18 instead.
    default_settings: ClassVar[Settings] = {
        "model": {"backbone": "efficientnet_lite0", "base_width": 16},
        "training": {"epochs": 5, "batch_size": 16},
    }

    unsaved_arguments: ClassVar[tuple[str, ...]] = ("weights",)

    published_evaluation: ClassVar[PublishedEvaluation] = PublishedEvaluation(
        "the score is the Mahalanobis distance of the features of the whole "
        "image; there is no published code, and what it does is not known "
        "beyond that",
        {"model.density": "gaussian", "model.localization": "gradcam"},
    )

    guide: ClassVar[HostGuide] = HostGuide(
        purpose="whole images that look unusual; parts may lie anywhere, maps "
        "are coarse",
        training_time="2 to 10 minutes on busy cores, pretrained and frozen",
        expectation="image AUROC 0.91 on magnetic tiles, 0.90 on screws of "
        "corrected gain",
    )

    def __init__(
        self,
        input_shape: Sequence[int | None] = (256, 256, 3),
        sspcab: str | Sequence[str] | None = "penultimate",
        variant: str = "3way",
        backbone: str = RESNET,
        freeze_backbone: bool = True,
        base_width: int = 64,
        head_layers: int = 1,
        density: str = "gaussian",
        normalize_embeddings: bool | None = None,
        localization: str = "gradcam",
        patch_size: int = 32,
        patch_stride: int = 4,
        weight_decay: float = 3e-5,
        jitter: float = 0.1,
        translation: float = 0.0,
        weights: str | os.PathLike | None = "auto",
        sspcab_options: dict[str, Any] | None = None,
        calibration: Calibration | dict[str, Any] | None = None,
        name: str = "cutpaste",
    ) -> None:
        # A scar must fit into the image.
        shape = check_input_shape(input_shape, minimum=32)
        if shape[-1] not in (1, 3):
            raise ValueError(
                "Images must have 1 (gray) or 3 (color) channels. "
                f"Received: input_shape={shape}"
            )
        is_pretrained = backbone != RESNET
        places = check_places(sspcab, PLACES[:1] if is_pretrained else PLACES)
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
            if is_pretrained:
                raise ValueError(
                    f"localization='patch' needs backbone={RESNET!r}, trained "
                    f"on crops. Received: backbone={backbone!r}"
                )
            if min(side or patch_size for side in shape[:2]) < patch_size:
                raise ValueError(
                    "Images must not be smaller than their patches. Received: "
                    f"input_shape={shape}, patch_size={patch_size}"
                )
        if normalize_embeddings is None:
            normalize_embeddings = not is_pretrained
        if weights == "auto":
            weights = "imagenet" if is_pretrained else None

        # === Functional model ===
        # The derivative of l2 * w^2 is that of a decay when l2 is its half.
        regularizer = keras.regularizers.L2(weight_decay / 2)
        block = (sspcab_options, regularizer)
        if is_pretrained:
            trunk = pretrained_trunk(
                shape[-1], backbone, places, weights, freeze_backbone, *block
            )
        else:
            trunk = resnet_trunk(shape[-1], width, places, weights, *block)
        image = keras.Input(shape, name="image")
        maps = keras.tree.flatten(trunk(image))
        embedding = pool(maps)
        logits = head(embedding, head_layers, CLASSES[variant], regularizer)
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
            raw_map = explain(maps, slope, image)
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
        self._classifier = Untracked(keras.Model(image, {"logits": logits}))
        self._embedder = Untracked(keras.Model(image, embedding))
        self._patches = patches
        self.backbone_weights = (
            describe_weights(backbone, weights) if is_pretrained else None
        )
        self._is_slowed = is_pretrained and not freeze_backbone
        self._views: dict[str, Any] = {
            "variant": variant,
            "jitter": jitter,
            "translation": translation,
        }

    @classmethod
    def from_published(
        cls,
        path: str | os.PathLike,
        image_size: int | Sequence[int | None] = 256,
        channel_order: str = "rgb",
        **arguments: Any,
    ) -> "CutPaste":
        """Builds the model from a checkpoint of Runinho/pytorch-cutpaste.

        The authors of the paper have published none. Width, head, classes and a
        block are found from the arrays; the density is fitted afterwards, to
        normal images (`fit_scoring`).

        Args:
            path: State dict: `.tch`, `.pth`, `.safetensors` or `.npz`.
            image_size: Height and width, or a number for squares; None for
                any. Defaults to 256.
            channel_order: `"rgb"` (the default) or `"bgr"`, the order of the
                colors that the checkpoint was trained on.
            **arguments: As of the constructor, for what is not in the arrays.

        Raises:
            ValueError: If the file does not fit.

        Source: names and the head are those of Runinho/pytorch-cutpaste.

        Example:
        >>> CutPaste.from_published("model-screw.tch")
        Traceback (most recent call last):
        ...
        ValueError: There is no file with weights at 'model-screw.tch'
        """
        arrays = read_checkpoint(path)
        stem = array_of(arrays, "resnet18.conv1.weight", path)
        classes = array_of(arrays, "out.bias", path).shape[0]
        depth = sum(
            name.startswith("head.") and array.ndim == 2
            for name, array in arrays.items()
        )
        names = dict(_TRUNK_NAMES)
        for index in range(depth):
            names[f"head{index}"] = f"head.{3 * index}"
            names[f"head{index}_bn"] = f"head.{3 * index + 1}"
        swap_colors(arrays, channel_order, 3, {"resnet18.conv1.weight": 3})
        if classes != CLASSES["3way"]:
            arguments = {"variant": "cutpaste", **arguments}
        model = cls(
            (*sides(image_size), 3),
            base_width=stem.shape[0],
            head_layers=depth - 1,
            **with_blocks(arguments, arrays, _BLOCKS),
        )
        load_arrays(model, arrays, names, path)
        return model

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> dict[str, Any]:
        if training:
            # Scores are of no use yet, and patches would take most of the time.
            return self._classifier.value(inputs, training=True)
        return super().call(inputs, training=training, mask=mask)

    def default_optimizer(
        self, learning_rate: float | None = None, steps: int | None = None
    ) -> keras.optimizers.Optimizer:
        """SGD with momentum 0.9 at 0.03, in one cosine cycle down to 0."""
        rate: Any = 0.03 if learning_rate is None else learning_rate
        if steps is not None:
            rate = keras.optimizers.schedules.CosineDecay(rate, steps)
        return keras.optimizers.SGD(rate, momentum=0.9)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)
        used: Any = self.optimizer
        used = getattr(used, "inner_optimizer", used)
        if not self._is_slowed or isinstance(used, keras.optimizers.SGD):
            return
        warnings.warn(
            "The backbone is to learn at a 300th of the rate, by smaller "
            f"gradients, of which {type(used).__name__} takes no notice: it "
            "learns at the full rate. Use keras.optimizers.SGD, or freeze it",
            stacklevel=2,
        )

    def default_losses(self) -> dict[str, Any]:
        """The cross-entropy of the classes."""
        return {
            "logits": keras.losses.SparseCategoricalCrossentropy(
                from_logits=True
            )
        }

    def prepare_training_data(self, data: Any) -> Any:
        """Cuts and pastes: each image becomes one of each class."""
        from keras_sspcab.data import cutpaste_views

        seed = np.random.randint(2**31)
        return cutpaste_views(data, **self._views, seed=seed)

    def fit_scoring(self, data: Any) -> None:
        """Fits the density to the features of normal images, or patches."""
        parts = [self._embeddings(x) for x, _ in self.input_batches(data)]
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
        self.discard_compiled()

    def _embeddings(self, images: Any) -> np.ndarray:
        """Features of images, or of patches that overlap by a half."""
        if self._patches is None:
            return np.asarray(self._embedder.value.predict_on_batch(images))
        stride = max(self._patches.patch_size // 2, 1)
        patches = self._patches(ops.convert_to_tensor(images), stride=stride)
        flat = ops.reshape(patches, (-1, patches.shape[-1]))
        return np.asarray(ops.convert_to_numpy(flat), "float32")
