"""How long hosts take for one frame, without and with the block: Table 6."""

import dataclasses
import gc
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sspcab import files
from keras_sspcab.compare.conditions import hardware
from keras_sspcab.compare.grid import OFF, ON
from keras_sspcab.compare.paper import read_paper_table
from keras_sspcab.compare.published import SOURCE
from keras_sspcab.compare.settings import HostSettings
from keras_sspcab.compare.tables import markdown
from keras_sspcab.progress import Progress
from keras_sspcab.runs.models import construct

TITLE = "Table 6: inference of one frame or object, without and with the block"

COLUMNS = ("host", "device", "without, ms", "with, ms", "ratio", "paper")

# Milliseconds of the paper, on a GPU with 24 GB.
_PUBLISHED = {
    "future_frame": "2.1 → 2.4 (+14.2 %)",
    "background_agnostic": "1.5 → 1.7 (+13.3 %)",
}

_WARM_UP = 3
_LEAST_ROUNDS = 5
_SECONDS = 8.0


@dataclasses.dataclass(frozen=True)
class Timing:
    """Times of a host on a device.

    Attributes:
        host: Its name.
        device: `"CPU"` or `"GPU"`.
        without: Median milliseconds of a call without the block.
        with_block: The same with it.
        ratio: Median ratio of calls that took turns.
        quartiles: The middle half of these ratios.
        rounds: How many there are.

    Example:
    >>> Timing("mnad", "CPU", 10.0, 11.0, 1.1, (1.0, 1.2), 9).cells()[4]
    '1.10 (1.00 to 1.20)'
    """

    host: str
    device: str
    without: float
    with_block: float
    ratio: float
    quartiles: tuple[float, float]
    rounds: int

    def cells(self) -> tuple[str, ...]:
        """Returns the texts of a row, under `COLUMNS`."""
        low, high = self.quartiles
        return (
            self.host,
            self.device,
            f"{self.without:.3g}",
            f"{self.with_block:.3g}",
            f"{self.ratio:.2f} ({low:.2f} to {high:.2f})",
            _PUBLISHED.get(self.host, "-"),
        )


def cases(budget: str) -> dict[str, Callable[[str], keras.Model]]:
    """Returns what builds each host of the paper, `"off"` or `"on"`.

    Sizes are those of its Tables 1 to 3 in a budget.
    """

    def of(model: str, preset: Any) -> Callable[[str], keras.Model]:
        settings = HostSettings([model], preset=preset)

        def build(block: str) -> keras.Model:
            config = settings.config(model, "", block, 0)
            return construct(config, config.data.image_size)

        return build

    tables = [read_paper_table(f"table{i}", budget) for i in (1, 2, 3)]
    return {
        model: of(model, table.preset)
        for table in tables
        for model in table.models
    }


def measure(
    budget: str,
    hosts: Sequence[str] = (),
    seconds: float = _SECONDS,
    progress: Progress | None = None,
) -> list[Timing]:
    """Times hosts on the CPU, and on the first GPU if there is one.

    Batch 1; both models of a host take turns, so that what else the machine
    does meets both.

    Args:
        budget: One of `keras_sspcab.compare.paper.BUDGETS`.
        hosts: Names of hosts; empty for all.
        seconds: How long a host is measured on a device, at least.
        progress: Takes what there is to say.

    Example:
    >>> measure("cpu", ["object_autoencoder"], seconds=0)[0].device
    'CPU'
    """
    timings = []
    known = cases(budget)
    devices = [d.device_type for d in tf.config.list_logical_devices()]
    for host in hosts or known:
        for device in ("CPU", "GPU"):
            if device not in devices:
                continue
            # Weights lie where a model was made: elsewhere, each call would
            # copy them.
            with tf.device(f"/{device}:0"):
                pair = [known[host](block) for block in (OFF, ON)]
            rounds = time_pair(device, pair, seconds)
            timing = _summarize(host, device, rounds)
            timings.append(timing)
            if progress is not None:
                progress.message(" ".join(timing.cells()))
        del pair
        keras.backend.clear_session()
        gc.collect()
    return timings


def time_pair(
    device: str, pair: Sequence[keras.Model], seconds: float
) -> list[tuple[float, ...]]:
    """Returns the seconds of neighboring calls of two models, batch 1.

    Example:
    >>> inputs = keras.Input((2,))
    >>> model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    >>> len(time_pair("CPU", [model, model], seconds=0.0)[0])
    2
    """
    rng = np.random.default_rng(0)
    with tf.device(f"/{device}:0"):
        inputs = [
            keras.tree.map_structure(
                lambda spec: tf.constant(
                    rng.random((1, *spec.shape[1:]), "float32")
                ),
                model.input,
            )
            for model in pair
        ]
        calls = [_compiled(model) for model in pair]
        rounds: list[tuple[float, ...]] = []
        began = time.perf_counter()
        while (
            len(rounds) < _WARM_UP + _LEAST_ROUNDS
            or time.perf_counter() - began < seconds
        ):
            rounds.append(
                tuple(
                    _seconds_of(call, x)
                    for call, x in zip(calls, inputs, strict=True)
                )
            )
    return rounds[_WARM_UP:]


def _summarize(
    host: str, device: str, rounds: Sequence[tuple[float, ...]]
) -> Timing:
    ratios = [with_block / without for without, with_block in rounds]
    low, middle, high = statistics.quantiles(ratios, n=4)
    without, with_block = (
        1000 * statistics.median(times) for times in zip(*rounds, strict=True)
    )
    return Timing(
        host, device, without, with_block, middle, (low, high), len(rounds)
    )


def _compiled(model: keras.Model) -> Callable[[Any], Any]:
    return tf.function(lambda x: model(x, training=False))


def _seconds_of(call: Callable[[Any], Any], x: Any) -> float:
    began = time.perf_counter()
    # The last operation of a GPU has ended when its result is there.
    keras.tree.map_structure(lambda y: y.numpy(), call(x))
    return time.perf_counter() - began


def write_page(
    root: str, budget: str, timings: Sequence[Timing]
) -> tuple[str, str]:
    """Writes `table6.md` and `table6.csv`; returns their paths."""
    os.makedirs(root, exist_ok=True)
    table = markdown(COLUMNS, [timing.cells() for timing in timings])
    text = (
        f"# {TITLE}\n\n{table}\n\n"
        "Medians of calls with a batch of 1, the outputs copied to the host; "
        "the ratio is that of calls that took turns, with its middle half. The "
        f"paper's are of a GPU with 24 GB ({SOURCE}, Table 6). A frame of "
        "objects takes as many calls, or one larger batch.\n\n"
        f"- Sizes: those of the budget {budget!r}\n- Hardware: {hardware()}\n"
        f"- Versions: TensorFlow {tf.__version__}, Keras {keras.__version__}\n"
    )
    page, csv = (os.path.join(root, f"table6.{end}") for end in ("md", "csv"))
    files.write_text(page, text)
    rows = [dataclasses.asdict(timing) for timing in timings]
    for row in rows:
        row["low"], row["high"] = row.pop("quartiles")
    files.write_csv(csv, list(rows[0]), rows)
    return page, csv
