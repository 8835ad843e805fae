"""The folder of one run: where its files lie and what state it is in."""

import functools
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from keras_sspcab import files
from keras_sspcab.files import now
from keras_sspcab.imports import versions_of
from keras_sspcab.locks import folder_lock, is_leftover
from keras_sspcab.runs.config import Config
from keras_sspcab.runs.parsing import load_config, write_config

_PACKAGES = (
    *("keras-sspcab", "keras", "numpy", "pillow"),
    *("tensorflow", "tensorflow-cpu"),
)


def evaluated_elsewhere(record: Mapping[str, Any]) -> str:
    """Returns the folder that a run was evaluated on, or "" if its own.

    Example:
    >>> evaluated_elsewhere(
    ...     {"data": {"root": "/screws"}, "evaluated": {"root": "/others"}}
    ... )
    '/others'
    """
    root = record.get("evaluated", {}).get("root", "")
    own = record.get("data", {}).get("root")
    return root if own is not None and root != own else ""


class RunFolder:
    """Paths and records of one run.

    Files of a training, besides those that other commands write:
        config.toml: the resolved configuration.
        run.json: versions, seed, data summary, command, times, state.
        checkpoint.npz: everything needed to continue the training.
        history.csv: one row an epoch.
        logs/: for TensorBoard.
        marked/: images that were marked as wrongly judged.
        model.keras: the trained and calibrated model.
        products/: of several products, the run of each.

    Example:
    >>> folder = RunFolder("runs/screws")
    >>> folder.exists, folder.file("model.keras").replace(os.sep, "/")
    (False, 'runs/screws/model.keras')
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.normpath(path)

    def file(self, *parts: str) -> str:
        """Returns the path of something inside the folder."""
        return os.path.join(self.path, *parts)

    def product(self, name: str) -> "RunFolder":
        """Returns the run of a product, where there are several."""
        return RunFolder(self.file("products", name))

    @property
    def joined(self) -> "RunFolder | None":
        """The run of several products that contains this run, or None."""
        parts = os.path.dirname(os.path.abspath(self.path))
        if os.path.basename(parts) != "products":
            return None
        whole = RunFolder(os.path.join(self.path, "..", ".."))
        known = whole.record.get("products", ())
        return whole if self.product_name in known else None

    @property
    def product_name(self) -> str:
        """Name of the product, for a run inside a run of several products."""
        return os.path.basename(os.path.abspath(self.path))

    @property
    def has_products(self) -> bool:
        """Whether it is a run of several products."""
        return self.config.data.layout == "products"

    @property
    def exists(self) -> bool:
        """Whether a run has been started here."""
        return os.path.isfile(self.file("config.toml"))

    @property
    def is_finished(self) -> bool:
        """Whether its training has come to its end."""
        return os.path.isfile(self.file("model.keras")) and (
            self.record.get("state") == "finished"
        )

    @functools.cached_property
    def config(self) -> Config:
        """The configuration that the run was started with."""
        return self.saved_config

    @property
    def saved_config(self) -> Config:
        """The configuration as it is in the folder now."""
        path = self.require("config.toml", "keras-sspcab train")
        return load_config(path, is_complete=True)

    @property
    def record(self) -> dict[str, Any]:
        """What `run.json` says; empty if there is none."""
        path = self.file("run.json")
        if not os.path.isfile(path):
            return {}
        return files.read_json(path, "Remove it, or start a new run")

    def update_record(self, **values: Any) -> None:
        """Changes entries of `run.json`."""
        files.write_json(self.file("run.json"), {**self.record, **values})

    def locked(
        self, wait_seconds: float = 0.0, command: Sequence[str] | None = None
    ) -> AbstractContextManager[bool]:
        """Returns a context in which no other process writes to the folder.

        It raises a ValueError where another does; see `locks.folder_lock`.
        """
        return folder_lock(self.path, wait_seconds, command)

    def check_free(self) -> None:
        """Raises a ValueError if the folder holds a run or other files."""
        if self.exists:
            state = "a finished" if self.is_finished else "an interrupted"
            advice = "Continue it with the `resume` argument, or choose"
            if self.is_finished:
                advice = "Choose"
                if os.path.exists(self.file("checkpoint.npz")):
                    advice = (
                        "Train it further with the `resume` argument and more "
                        "epochs, or choose"
                    )
            raise ValueError(
                f"{self.path} holds {state} run. {advice} another folder"
            )
        if os.path.lexists(self.path) and not os.path.isdir(self.path):
            raise ValueError(f"{self.path} is a file. Choose a folder")
        names = os.listdir(self.path) if os.path.isdir(self.path) else []
        # A start that was killed at once may have left these.
        left = ("run.json", "marked")
        if any(n not in left and not is_leftover(n) for n in names):
            raise ValueError(
                f"{self.path} is not empty and holds no run. Choose another one"
            )

    def start(self, config: Config) -> None:
        """Starts a run in this folder, which must be free."""
        self.check_free()
        os.makedirs(self.path, exist_ok=True)
        self.update_record(
            state="training",
            command=[os.path.basename(sys.argv[0]), *sys.argv[1:]],
            started=now(),
            seed=config.training.seed,
            versions=versions(),
        )
        # Last: a folder with this file is a run.
        write_config(self.file("config.toml"), config)

    def require(self, name: str, command: str) -> str:
        """Returns the path of a file that a command writes, or names both."""
        path = self.file(name)
        if os.path.exists(path):
            return path
        if not os.path.isdir(self.path):
            problem = f"There is no run folder {self.path!r}"
        elif not self.exists:
            problem = f"{self.path!r} is no run folder: it has no config.toml"
        else:
            problem = f"The run {self.path} has no {name} yet"
        raise ValueError(f"{problem}. It is written by `{command}`")


def default_run_path(config: Config, root: str = "runs") -> str:
    """Returns a free folder named after model and data."""
    data = os.path.basename(os.path.abspath(config.data.path))
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{config.model.name}-{data}")
    number = 1
    while os.path.exists(path := os.path.join(root, f"{name}-{number}")):
        number += 1
    return path


def versions() -> dict[str, str]:
    """Returns the versions of what a run depends on."""
    return {"python": platform.python_version(), **versions_of(_PACKAGES)}
