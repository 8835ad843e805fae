"""The whole state of a training in one file, without pickle."""

import dataclasses
import json
from typing import Any

import keras
import numpy as np

from keras_sspcab import files

_FORMAT = "keras-sspcab checkpoint"
_VERSION = 1


class CheckpointError(ValueError):
    """A checkpoint that is broken or belongs to another training.

    Example:
    >>> issubclass(CheckpointError, ValueError)
    True
    """


@dataclasses.dataclass
class TrainingState:
    """How far a training has come."""

    #: Epochs done, and so the index of the one that is running.
    epoch: int = 0
    #: Steps done in that epoch.
    step: int = 0
    #: Results of each epoch done.
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    #: What must stay the same for the training to continue.
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read: variables in the order of the model."""

    path: str
    state: TrainingState
    arrays: list[np.ndarray]
    names: list[str]

    def restore(self, model: keras.Model) -> None:
        """Sets all variables of a model, its optimizers and its metrics.

        The model has taken a step: the latter create their variables then.
        """
        self._assign(_variables(model), self.names, self.arrays)

    def restore_weights(self, model: keras.Model) -> None:
        """Sets the variables of a model that is not to be trained further."""
        variables = [("model", variable) for variable in model.variables]
        count = sum(name.startswith("model ") for name in self.names)
        self._assign(variables, self.names[:count], self.arrays[:count])

    def _assign(
        self,
        variables: list[tuple[str, Any]],
        names: list[str],
        arrays: list[np.ndarray],
    ) -> None:
        expected = [_name(kind, variable) for kind, variable in variables]
        if expected != names:
            counts = f"{len(expected)} variables", f"{len(names)} variables"
            pairs = zip(expected, names, strict=False)
            mine, theirs = next((p for p in pairs if p[0] != p[1]), counts)
            raise CheckpointError(
                f"{self.path} is the checkpoint of another model: it holds "
                f"{theirs} where this one has {mine}. Start a new run"
            )
        for (_, variable), value in zip(variables, arrays, strict=True):
            variable.assign(value)


def write_checkpoint(
    path: str, model: keras.Model, state: TrainingState
) -> None:
    """Writes a checkpoint; the one before stays until this one is complete."""
    variables = _variables(model)
    description = {
        "format": _FORMAT,
        "version": _VERSION,
        "names": [_name(kind, variable) for kind, variable in variables],
        "state": dataclasses.asdict(state),
    }
    arrays: dict[str, Any] = {"description": np.array(json.dumps(description))}
    for index, (_, variable) in enumerate(variables):
        arrays[f"variable_{index}"] = _to_numpy(variable)
    with files.replacing(path) as temporary:
        np.savez(temporary, **arrays)


def read_checkpoint(path: str) -> Checkpoint:
    """Reads a checkpoint; nothing is restored yet."""
    try:
        with (
            open(path, "rb") as file,
            np.load(file, allow_pickle=False) as archive,
        ):
            description = json.loads(str(archive["description"]))
            if description["format"] != _FORMAT:
                raise KeyError("format")
            version = description["version"]
            if version != _VERSION:
                raise CheckpointError(
                    f"{path} has version {version} of the format, this "
                    f"package reads version {_VERSION}. Use the package that "
                    "wrote it, or start a new run"
                )
            names = list(description["names"])
            # Reading all of it finds damage before anything is changed.
            arrays = [archive[f"variable_{i}"] for i in range(len(names))]
            state = TrainingState(**description["state"])
    except (CheckpointError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # what is broken raises errors of all kinds
        raise CheckpointError(
            f"{path} is no checkpoint of a training, or broken: "
            f"{type(error).__name__}: {error}. Remove it to start again from "
            "the first epoch, or put a copy in place"
        ) from error
    return Checkpoint(path, state, arrays, names)


def _variables(model: keras.Model) -> list[tuple[str, Any]]:
    """Returns all state of a training, each variable once."""
    groups = (
        ("model", model.variables),
        *(("optimizer", o.variables) for o in _optimizers(model)),
        ("metric", model.metrics_variables),
    )
    unique: dict[int, tuple[str, Any]] = {}
    for kind, variables in groups:
        for variable in variables:
            unique.setdefault(id(variable), (kind, variable))
    return list(unique.values())


def _optimizers(model: keras.Model) -> list[Any]:
    """Returns the optimizer, then others that a host holds as attributes."""
    values = [model.optimizer]
    for name in sorted(vars(model)):
        value = getattr(model, name, None)
        if isinstance(value, dict):
            values += value.values()
        elif isinstance(value, (list, tuple)):
            values += value
        else:
            values.append(value)
    # What appears twice adds no variables.
    return [v for v in values if isinstance(v, keras.optimizers.Optimizer)]


def _name(kind: str, variable: Any) -> str:
    # Names such as `conv2d_8` count the layers of the process: neither the
    # path nor the names of optimizers, which hold it, say what a variable is.
    name = "" if kind == "optimizer" else f" {variable.name}"
    return f"{kind}{name} {tuple(variable.shape)} {variable.dtype}"


def _to_numpy(variable: Any) -> np.ndarray:
    value = keras.ops.convert_to_numpy(variable)
    # The .npy format has no bfloat16 and the like; float32 holds them exactly.
    return value.astype("float32") if value.dtype.kind == "V" else value
