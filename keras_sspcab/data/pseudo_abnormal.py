"""Pseudo-abnormal objects: pictures of other things, and sped-up motion.

They teach the background-agnostic framework of Georgescu et al. (TPAMI 2021)
what is not normal.
"""

from typing import Any

import tensorflow as tf

from keras_sspcab.checks import standardize_int, standardize_number
from keras_sspcab.data.file_system import (
    enumerate_names,
    is_folder,
    join,
    require_folder,
    standardize_path,
)
from keras_sspcab.data.random import PICTURE, fold_in, fold_key
from keras_sspcab.data.simulation.textures import (
    EmbeddedTextures,
    FolderTextures,
    TextureSource,
)

__all__ = [
    "add_pseudo_abnormal",
    "tiny_imagenet_folders",
]

_MOTIONS = ("previous_motion", "next_motion")

# fmt: off
#: WordNet identifiers of the 68 classes that the framework's authors name.
TINY_IMAGENET_CLASSES = (
    "n01443537", "n01629819", "n01641577", "n01644900", "n01698640",
    "n01742172", "n01768244", "n01770393", "n01774384", "n01774750",
    "n01784675", "n01855672", "n01882714", "n01910747", "n01917289",
    "n01944390", "n01945685", "n01950731", "n01983481", "n01984695",
    "n02002724", "n02056570", "n02058221", "n02074367", "n02165456",
    "n02190166", "n02206856", "n02226429", "n02231487", "n02233338",
    "n02236044", "n02268443", "n02279972", "n02281406", "n02321529",
    "n02395406", "n02666196", "n02999410", "n03400231", "n03424325",
    "n03544143", "n03706229", "n03804744", "n03937543", "n04067472",
    "n04179913", "n04265275", "n04275548", "n04328186", "n04398044",
    "n04399382", "n04596742", "n04597913", "n07579787", "n07583066",
    "n07614500", "n07695742", "n07715103", "n07720875", "n07734744",
    "n07747607", "n07749582", "n07753592", "n07768694", "n07871810",
    "n07873807", "n07875152", "n09256479",
)
# fmt: on


def add_pseudo_abnormal(
    dataset: tf.data.Dataset,
    seed: int = 0,
    epoch: int = 0,
    images: Any = None,
    speed: float = 3.0,
) -> tf.data.Dataset:
    """Adds as many pseudo-abnormal crops to each batch of normal ones.

    Their appearance is that of pictures from elsewhere, their motion that of
    the normal crops, `speed` times as fast. The framework estimates the flow
    between frames that lie further apart instead: batches that hold
    `abnormal_previous_motion` and `abnormal_next_motion` already keep them.

    The elements follow from `seed`, `epoch` and their position alone: `.skip`
    gives what follows, and a dataset that is iterated again repeats itself.

    Args:
        dataset: Batches of crops: dicts of `appearance` `(batch, height, width,
            1 or 3)` in [0, 1] and `previous_motion` and `next_motion` `(batch,
            height, width, 2)`, and whatever else.
        seed: Integer, 0 or more.
        epoch: Number of the epoch, from 0.
        images: Folder or folders of pictures, a `TextureSource` (to list a
            folder once, not in every epoch), or None (the default) for ten
            photographs of scikit-image: few for a result that counts. The
            framework's authors take UIUC textures, Oxford flowers, anime faces
            and 68 classes of Tiny ImageNet (`tiny_imagenet_folders`).
        speed: How much faster than normal, more than 1: motion at its own speed
            is normal. The framework enlarges the temporal step by a factor that
            we do not know; 3 is a guess.

    Returns:
        A `tf.data.Dataset` of as many batches with the keys
        `abnormal_appearance`, `abnormal_previous_motion` and
        `abnormal_next_motion` added.

    Raises:
        ValueError: If the dataset has other elements, an argument is out of
            range, or the pictures cannot be read.

    Example:
    >>> motion = tf.ones((4, 16, 16, 2))
    >>> crops = {
    ...     "appearance": tf.zeros((4, 16, 16, 1)),
    ...     "previous_motion": motion,
    ...     "next_motion": motion,
    ... }
    >>> dataset = tf.data.Dataset.from_tensors(crops)
    >>> sorted(add_pseudo_abnormal(dataset).element_spec)[:2]
    ['abnormal_appearance', 'abnormal_next_motion']
    """
    spec = _require_crops(dataset)
    seed = standardize_int(seed, "seed", 0)
    epoch = standardize_int(epoch, "epoch", 0)
    speed = standardize_number(speed, "speed", 1.0, excluded=1.0)
    source = images
    if images is None:
        source = EmbeddedTextures(batch_share=0.0)
    elif not isinstance(images, TextureSource):
        source = FolderTextures(images)
    start = fold_key(seed, PICTURE, epoch)
    _, height, width, channels = spec["appearance"].shape
    picture = tf.TensorSpec((height, width, channels), tf.float32)

    def add(position: tf.Tensor, batch: dict[str, tf.Tensor]) -> Any:
        of_batch = fold_in(start, position)
        drawn = tf.map_fn(
            lambda row: source.draw_picture(
                (height, width), channels, fold_in(of_batch, row)
            ),
            tf.range(tf.shape(batch["appearance"])[0]),
            fn_output_signature=picture,
        )
        drawn.set_shape(batch["appearance"].shape)
        fast = {f"abnormal_{name}": batch[name] * speed for name in _MOTIONS}
        return {**fast, **batch, "abnormal_appearance": drawn}

    return (
        dataset.enumerate()
        .map(
            tf.autograph.experimental.do_not_convert(add),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .prefetch(tf.data.AUTOTUNE)
    )


def tiny_imagenet_folders(root: Any) -> tuple[str, ...]:
    """Returns the folders of the abnormal classes, for `FolderTextures`.

    Args:
        root: Tiny ImageNet as it is distributed (`tiny-imagenet-200`), or its
            `train` folder.

    Raises:
        ValueError: If a class has no folder there.

    Example:
    >>> tiny_imagenet_folders("tiny-imagenet-200")[0]  # doctest: +SKIP
    'tiny-imagenet-200/train/n01443537'
    """
    root = standardize_path(root)
    require_folder(root)
    train = join(root, "train")
    base = train if is_folder(train) else root
    folders = tuple(join(base, name) for name in TINY_IMAGENET_CLASSES)
    missing = [folder for folder in folders if not is_folder(folder)]
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(folders)} classes have no folder. "
            f"Received: root={root!r} without {enumerate_names(missing)}"
        )
    return folders


def _require_crops(dataset: Any) -> dict[str, tf.TensorSpec]:
    """Returns what the batches hold, or raises a ValueError."""
    if not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            "Pseudo-abnormal crops are added to a tf.data.Dataset. Received: "
            f"dataset={dataset!r}"
        )
    spec = dataset.element_spec
    needed = ("appearance", *_MOTIONS)
    if not isinstance(spec, dict) or set(needed) - set(spec):
        raise ValueError(
            f"The dataset must yield dicts with the keys {list(needed)}. "
            f"Received: elements {spec}"
        )
    shape = spec["appearance"].shape
    if shape.rank != 4 or None in shape[1:] or shape[3] not in (1, 3):
        raise ValueError(
            "The appearance must have the shape (batch, height, width, 1 or "
            f"3), known but for the batch. Received: shape {shape}"
        )
    return spec
