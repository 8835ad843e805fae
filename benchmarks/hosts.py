"""Times hosts with the block against the same without: forward and training.

Run: python -m benchmarks.hosts [--sizes small cpu] [--only NAME ...]
        [--seconds 4] [--output x.csv]

`small` are the hosts of the tests, whose steps take milliseconds, `cpu` those
of `keras-sspcab reproduce table6 --budget cpu`. Forward is one image, clip or
object; a training step is one of `fit` on four of them, of each stage where a
host has several; hosts on frozen features train nothing without the block. Both
models take turns: a ratio is that of two neighboring calls, and the table gives
its median and quartiles. Calls of a millisecond are as long as what the
machine does besides.
"""

import gc
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import keras

from benchmarks.common import option_parser, write_rows
from keras_sspcab.compare.grid import OFF, ON
from keras_sspcab.compare.timing import cases, time_pair
from keras_sspcab.hosts import FeatureModel, available_applications
from keras_sspcab.runs.estimation import StepClock
from tests.hosts import samples, small_host

_BATCH, _STEPS = 4, 4


def pairs(size: str, only: list[str]) -> Iterator[tuple[str, list[Any]]]:
    """Builds each host, without and with the block."""
    known = (
        cases(size)
        if size != "small"
        else dict.fromkeys(sorted(available_applications()))
    )
    for name, build in known.items():
        if only and name not in only:
            continue
        pair = [
            build(block)
            if build
            else small_host(name, **({"sspcab": None} if block == OFF else {}))
            for block in (OFF, ON)
        ]
        yield name, pair
        del pair
        keras.backend.clear_session()
        gc.collect()


def training_ratios(
    pair: list[Any], seconds: float
) -> dict[str, list[tuple[float, float]]]:
    """Returns the seconds of steps without and with the block, by stage."""
    stages = []
    for model in pair:
        if model.kind != "objects":
            model.compile()
            stages.append([model])
            continue
        stages.append(list(model.training_stages()))
        for stage in stages[-1]:
            stage.compile()
    x = samples(pair[0], _BATCH * _STEPS, for_training=True)
    found = defaultdict(list)
    for parts in zip(*stages, strict=True):
        deadline = None
        while deadline is None or time.perf_counter() < deadline:
            # The first step of a call of `fit` starts the reading.
            clocks = [StepClock(skipped=1) for _ in parts]
            for part, clock in zip(parts, clocks, strict=True):
                part.fit(x, batch_size=_BATCH, callbacks=[clock], verbose=0)
            if deadline is None:  # That compiled.
                deadline = time.perf_counter() + seconds
                continue
            steps = zip(*(clock.seconds for clock in clocks), strict=True)
            found[parts[0].name] += steps
    return found


def main() -> None:
    parser = option_parser(__doc__)
    sizes = ("small", "cpu")
    parser.add_argument("--sizes", nargs="+", choices=sizes, default=sizes)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    rows = []

    def add(host: str, size: str, what: str, pairs: Any) -> None:
        off, on = (
            1e3 * statistics.median(times) for times in zip(*pairs, strict=True)
        )
        low, middle, high = statistics.quantiles(
            [with_block / without for without, with_block in pairs], n=4
        )
        rows.append(
            {
                **{"host": host, "size": size, "what": what},
                **{"off_ms": off, "on_ms": on},
                **{"ratio": middle, "low": low, "high": high},
            }
        )
        print(
            f"| {host} | {size} | {what} | {off:.3g} | {on:.3g} | {middle:.2f} "
            f"({low:.2f} to {high:.2f}) |",
            flush=True,
        )
        # At once, so that a long run loses nothing.
        write_rows(options.output, rows)

    print("| host | size | what | off, ms | on, ms | ratio |")
    print("|---|---|---|---|---|---|")
    for size, (name, pair) in itertools.chain.from_iterable(
        zip(itertools.repeat(size), pairs(size, options.only))
        for size in options.sizes
    ):
        add(name, size, "forward", time_pair("CPU", pair, options.seconds))
        if isinstance(pair[0], FeatureModel):
            continue
        for stage, seconds in training_ratios(pair, options.seconds).items():
            add(name, size, f"training, {stage}", seconds)


if __name__ == "__main__":
    main()
