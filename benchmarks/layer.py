"""Times the block against the convolution it replaces, and against other forms.

Run: python -m benchmarks.layer [--output benchmarks/results/x.csv]

Everything is measured side by side in one run, the variants taking turns, and
reported as ratios of medians, so that another machine or a busy one changes
them little:

(a) conv3x3: the 3x3 convolution with ReLU that the block replaces;
(b) shifted: four k' x k' convolutions on shifted views, summed, with ReLU: the
    masked convolution as the paper states it, without attention and loss;
(c) masked: one k x k convolution with a kernel that is zero outside of the
    corners, likewise;
(d) authors: their block as a user of Keras would write it: four convolutions on
    crops, summed, with ReLU, squeeze-and-excitation and squared error.

Forward is inference on one batch; a training step is the forward pass with the
block's loss and the gradients of all weights and of the input. Peak memory is
the growth of the process during its first training step, each in a fresh one
(Linux only: leave it out with --no-memory elsewhere).

With --one-thread the minimum of the processor's time on one thread counts
instead of the median of the clock's: it is the same on a busy machine, and what
tests/layers/test_speed.py compares with.

On a GPU, made visible by CUDA_VISIBLE_DEVICES=0, float32 is computed without
TensorFloat-32 unless --precision tf32 says so.
"""

import dataclasses
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import memory, option_parser, write_rows

CHANNELS = (3, 16, 32, 64, 128, 256, 512)
SIZES = (16, 64)
COLUMNS = (
    "block",
    "dilated",
    "stacked",
    "shifted",
    "masked",
    "authors",
    "conv3x3",
)


@dataclasses.dataclass(frozen=True)
class Case:
    """What is timed: one size of map, one size of corner, one compiler."""

    channels: int
    size: int
    kernel_size: int = 1
    xla: bool = False
    batch: int = 4
    precision: str = "float32"

    @property
    def title(self) -> str:
        engine = "XLA" if self.xla else "graph"
        return (
            f"{engine:5} {self.precision} k'={self.kernel_size} "
            f"{self.batch}x{self.size}x{self.size}x{self.channels}"
        )


def make_layer(variant: str, channels: int, kernel_size: int) -> Any:
    import keras

    import keras_sspcab

    if variant == "conv3x3":
        return keras.layers.Conv2D(
            channels, 3, padding="same", activation="relu"
        )
    if variant == "block":
        return keras_sspcab.SSPCABLayer(kernel_size=kernel_size)
    if variant == "authors":
        return make_authors_block(channels, kernel_size)
    return keras_sspcab.MaskedConv2D(
        channels, kernel_size=kernel_size, activation="relu"
    )


def make_authors_block(channels: int, kernel_size: int) -> Any:
    """Returns the block for a dilation of 1, as four layers on crops."""
    import keras
    from keras import ops

    layers = keras.layers
    offset, margin = kernel_size + 3, kernel_size + 1

    class AuthorsBlock(layers.Layer):
        def build(self, input_shape: Any) -> None:
            self.convs = [layers.Conv2D(channels, kernel_size) for _ in "1234"]
            self.squeeze = layers.Dense(max(1, channels // 8), "relu")
            self.excite = layers.Dense(channels, "sigmoid")
            for conv in self.convs:
                conv.build(input_shape)
            self.squeeze.build((None, channels))
            self.excite.build((None, self.squeeze.units))

        def call(self, inputs: Any, training: bool = False) -> Any:
            x = keras.layers.ZeroPadding2D(margin)(inputs)
            first, last = slice(None, -offset), slice(offset, None)
            corners = itertools.product((first, last), repeat=2)
            maps = [
                conv(x[:, rows, columns])
                for conv, (rows, columns) in zip(
                    self.convs, corners, strict=True
                )
            ]
            x = ops.relu(sum(maps[1:], maps[0]))
            gate = self.excite(self.squeeze(ops.mean(x, axis=(1, 2))))
            outputs = x * gate[:, None, None, :]
            self.add_loss(0.1 * ops.mean(ops.square(outputs - inputs)))
            return outputs

    return AuthorsBlock()


def make_functions(
    variant: str, case: Case
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Returns forward and training step of a variant as compiled functions."""
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_sspcab.layers import masked_conv_form

    policy = "mixed_bfloat16" if case.precision == "bfloat16" else "float32"
    keras.config.set_dtype_policy(policy)
    tf.config.experimental.enable_tensor_float_32_execution(
        case.precision == "tf32"
    )
    layer = make_layer(variant, case.channels, case.kernel_size)
    shape = (case.batch, case.size, case.size, case.channels)
    layer.build((None, *shape[1:]))
    # Drawn by NumPy: memory that TensorFlow has freed is used again, and would
    # be missing from the growth of the process.
    rng = np.random.default_rng(0)
    x = tf.constant(np.maximum(rng.standard_normal(shape, "float32"), 0))
    upstream = tf.constant(rng.standard_normal(shape, "float32"))
    if case.precision == "bfloat16":
        x, upstream = (tf.cast(y, tf.bfloat16) for y in (x, upstream))
    is_whole = variant in ("block", "authors", "conv3x3")
    form = "auto" if is_whole else variant

    @tf.function(jit_compile=case.xla)
    def forward(inputs: Any) -> Any:
        with masked_conv_form(form):
            return layer(inputs, training=False)

    @tf.function(jit_compile=case.xla)
    def train(inputs: Any) -> Any:
        with masked_conv_form(form), tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(tf.cast(outputs * upstream, tf.float32))
            loss += sum(layer.losses)
        return tape.gradient(loss, [inputs, *layer.trainable_weights])

    return lambda: forward(x), lambda: train(x)


def time_side_by_side(
    functions: dict[str, Callable[[], Any]], seconds: float, one_thread: bool
) -> dict[str, float]:
    """Returns the usual seconds of each function, called in turns."""
    clock = time.process_time if one_thread else time.perf_counter
    for function in functions.values():
        for _ in range(3):
            wait(function())
    times: dict[str, list[float]] = {name: [] for name in functions}
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(times["conv3x3"]) < 7:
        for name, function in functions.items():
            start = clock()
            wait(function())
            times[name].append(clock() - start)
    usual = min if one_thread else statistics.median
    return {name: usual(values) for name, values in times.items()}


def wait(result: Any) -> None:
    # Reading one value makes sure that everything has been computed.
    first = result[-1] if isinstance(result, list) else result
    first.numpy()


def peak_memory(variant: str, case: Case) -> float:
    """Returns by how many MB a training step makes a fresh process grow."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_grow, (variant, case))


def _grow(variant: str, case: Case) -> float:
    small = dataclasses.replace(case, size=4, batch=1)
    for function in make_functions(variant, small):
        wait(function())
    _, train = make_functions(variant, case)
    # Start a new peak (Linux): imports and tracing have reached a higher one.
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    wait(train())
    return memory("VmHWM") - before


def measure(
    case: Case, variants: list[str], seconds: float, one_thread: bool
) -> list[dict[str, Any]]:
    variants = [
        variant
        for variant in variants
        if not (case.xla and variant == "masked" and case.kernel_size > 1)
    ]
    functions = {name: make_functions(name, case) for name in variants}
    rows = []
    for index, what in enumerate(("forward", "training step")):
        times = time_side_by_side(
            {name: both[index] for name, both in functions.items()},
            seconds,
            one_thread,
        )
        rows.append({"case": case, "what": what, "values": times})
    return rows


def report(rows: list[dict[str, Any]]) -> str:
    """Formats rows as a Markdown table of ratios."""
    lines = [
        "| case | what | conv3x3 | block / (a) | block / (b) | block / (c) "
        "| block / (d) | dilated : stacked : shifted : masked |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        values = row["values"]
        base = values["conv3x3"]
        unit = "MB" if row["what"] == "peak memory" else "ms"
        scale = 1 if unit == "MB" else 1e3

        def ratio(over: str, values: dict[str, float] = values) -> str:
            if not values.get(over):
                return "-"
            return f"{values['block'] / values[over]:.2f}"

        forms = [
            f"{values[form] / base:.2f}" if form in values and base else "-"
            for form in ("dilated", "stacked", "shifted", "masked")
        ]
        lines.append(
            f"| {row['case'].title} | {row['what']} "
            f"| {base * scale:.2f} {unit} | {ratio('conv3x3')} "
            f"| {ratio('shifted')} | {ratio('masked')} | {ratio('authors')} "
            f"| {' : '.join(forms)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--channels", type=int, nargs="+", default=CHANNELS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--kernel-sizes", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=("float32", "tf32", "bfloat16"),
        default=["float32"],
    )
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument(
        "--variants", nargs="+", choices=COLUMNS, default=COLUMNS
    )
    parser.add_argument("--one-thread", action="store_true")
    parser.add_argument("--no-xla", action="store_true")
    parser.add_argument("--no-memory", action="store_true")
    arguments = parser.parse_args()

    if arguments.one_thread:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    variants = list(dict.fromkeys([*arguments.variants, "conv3x3"]))
    rows = []
    engines = (False,) if arguments.no_xla else (False, True)
    for precision, xla, kernel_size, size, channels in itertools.product(
        arguments.precision,
        engines,
        arguments.kernel_sizes,
        arguments.sizes,
        arguments.channels,
    ):
        case = Case(
            channels, size, kernel_size, xla, arguments.batch, precision
        )
        rows += measure(case, variants, arguments.seconds, arguments.one_thread)
        if not (arguments.no_memory or xla):
            values = {name: peak_memory(name, case) for name in variants}
            rows.append({"case": case, "what": "peak memory", "values": values})
        print(f"measured {case.title}", flush=True)
    print(report(rows))
    table = [
        {"case": row["case"].title, "what": row["what"], **row["values"]}
        for row in rows
    ]
    write_rows(arguments.output, table)


if __name__ == "__main__":
    main()
