"""Loads published checkpoints into hosts, by tables of names."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_sspcab.checks import standardize_choice
from keras_sspcab.torch_files import read_arrays
from keras_sspcab.torch_weights import assign_torch_arrays, find_block

Arrays = dict[str, np.ndarray]

#: From names of layers here, as regular expressions, to names there.
Names = Mapping[str, str]


def stage_names(layer: str, there: str) -> dict[str, str]:
    """Returns names of two convolutions, each with normalization and ReLU."""
    indices = {"conv1": 0, "conv1_norm": 1, "conv2": 3, "conv2_norm": 4}
    return {f"{layer}_{name}": f"{there}.{i}" for name, i in indices.items()}


def read_checkpoint(path: str | os.PathLike) -> Arrays:
    """Reads a state dict; see `keras_sspcab.torch_files.read_arrays`.

    What `torch.nn.DataParallel` puts before each name is taken away.
    """
    arrays = read_arrays(path)
    if all(name.startswith("module.") for name in arrays):
        arrays = {name[len("module.") :]: arrays[name] for name in arrays}
    return arrays


def read_tf_checkpoint(path: str | os.PathLike) -> Arrays:
    """Reads a checkpoint of TensorFlow 1, with names and axes as in PyTorch.

    Args:
        path: What its files begin with, such as `model.ckpt-80000`, or a `.npz`
            of its variables. What optimizers keep is left out.
    """
    path = os.fspath(path)
    if path.endswith(".npz"):
        variables = read_arrays(path)
    else:
        import tensorflow as tf

        try:
            reader = tf.train.load_checkpoint(path)
            variables = {
                name: reader.get_tensor(name)
                for name in reader.get_variable_to_shape_map()
            }
        except (tf.errors.OpError, ValueError, OSError) as error:
            raise ValueError(
                f"There is no checkpoint of TensorFlow at {path!r}. Give what "
                f"its files begin with, such as model.ckpt-80000. {error}"
            ) from error
    arrays = {}
    for name, value in variables.items():
        prefix, _, leaf = name.rpartition("/")
        if leaf == "weights":
            # (height, width, input, output); transposed, output comes first.
            arrays[f"{prefix}.weight"] = value.transpose(3, 2, 0, 1)
        elif leaf == "biases":
            arrays[f"{prefix}.bias"] = value
    return arrays


def sides(image_size: int | Sequence[int | None]) -> tuple[int | None, ...]:
    """Returns height and width, of one number or two."""
    if isinstance(image_size, int):
        return image_size, image_size
    return tuple(image_size)


def array_of(arrays: Arrays, name: str, path: Any) -> np.ndarray:
    """Returns an array that tells of what size a network is."""
    if name not in arrays:
        raise ValueError(
            f"{os.fspath(path)} holds no array {name!r}, so it is no "
            f"checkpoint of this host. It holds {', '.join(list(arrays)[:5])}"
        )
    return arrays[name]


def load_arrays(
    model: keras.Model,
    arrays: Arrays,
    names: Names,
    path: Any,
    ignored: tuple[str, ...] = (),
) -> None:
    """Sets the weights of the layers that `names` knows.

    Args:
        model: A host, or a network of one.
        arrays: The arrays of the checkpoint.
        names: From names of layers, as regular expressions of the whole name,
            to what their arrays begin with there.
        path: Path of the checkpoint, for messages.
        ignored: What the names of arrays begin with that have no layer.
    """

    def torch_name(layer: str) -> str | None:
        for pattern, replacement in names.items():
            if match := re.fullmatch(pattern, layer):
                return match.expand(replacement)
        return None

    assign_torch_arrays(
        model.layers,
        arrays,
        torch_name,
        ignored,
        source=f"{os.fspath(path)} does not fit {model.name}",
    )


def with_blocks(
    arguments: Mapping[str, Any], arrays: Arrays, prefixes: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the arguments of a host, with the blocks of a checkpoint.

    Args:
        arguments: Other arguments; options of blocks in them are stronger. The
            places of blocks are those of the arrays.
        arrays: The arrays of the checkpoint.
        prefixes: What the names of a block's arrays begin with, by place.
    """
    if "sspcab" in arguments:
        raise ValueError(
            "`sspcab` cannot be chosen for a published checkpoint: blocks are "
            "found from its arrays. Received: "
            f"sspcab={arguments['sspcab']!r}. Leave it out"
        )
    found = {
        place: options
        for place, prefix in prefixes.items()
        if (options := find_block(arrays, f"{prefix}."))
    }
    kinds = list(found.values())
    if any(options != kinds[0] for options in kinds):
        raise ValueError(
            "Blocks of different kinds cannot be in one host. Received: "
            + ", ".join(f"{place}: {found[place]}" for place in found)
        )
    result = {**arguments, "sspcab": tuple(found) or None}
    if kinds:
        given = arguments.get("sspcab_options") or {}
        result["sspcab_options"] = {**kinds[0], **given}
    return result


def swap_colors(
    arrays: Arrays,
    order: str,
    channels: int,
    inputs: Mapping[str, int],
    outputs: Iterable[str] = (),
) -> None:
    """Turns the colors of a network around where it was trained on BGR.

    Args:
        arrays: The arrays, which are replaced.
        order: `"bgr"`, or `"rgb"` for arrays that stay as they are.
        channels: Those of an image; without three there is no order.
        inputs: Names of kernels, and how many of their input channels, the
            first ones, are those of images that follow each other.
        outputs: Names of arrays whose first axis of the size `channels` are the
            colors of an image.
    """
    order = standardize_choice(order, ("bgr", "rgb"), "channel_order")
    if order == "rgb" or channels != 3:
        return
    for name, count in inputs.items():
        index = np.arange(arrays[name].shape[1])
        index[:count] = index[:count].reshape(-1, 3)[:, ::-1].ravel()
        arrays[name] = np.take(arrays[name], index, 1)
    for name in outputs:
        axis = arrays[name].shape.index(channels)
        arrays[name] = np.flip(arrays[name], axis)
