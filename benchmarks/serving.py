"""Measures the embedded server against calling its SavedModel directly.

Run: python -m benchmarks.serving [--output x.csv]

Made-up gray PNGs, one in a request, and the plain auto-encoder for images of
their size. Two servers, each in a process of its own, wait all the time: one
joins requests into batches of up to 32, the other runs each by itself. Clients
are threads of this process, each with a connection of its own, which ask again
as soon as they have an answer. "direct" calls the SavedModel in this process,
from as many threads. Cases take turns, so that what else the machine does falls
on all of them; figures are medians over the turns, and ratios those within a
turn. As servers, clients and direct calls share the cores, the time that the
processors work for a request is given, too: that of the server alone.

Prints a Markdown table. The load of the machine is printed, too: servers,
clients and direct calls all share the same cores.
"""

import concurrent.futures
import contextlib
import gc
import io
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common import option_parser, write_rows

NAME = "model"
CLIENTS = (1, 4, 16)
BATCH_SIZES = (1, 32)

# What a request holds: the file, or its pixels as floats.
KINDS = ("file", "floats")

Ask = Callable[[int], Any]
# Seconds that the processors have worked for a process.
Clock = Callable[[], float]


def make_images(count: int, size: int) -> dict[str, list[Any]]:
    """Returns noise on gradients, as PNG files and as floats."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, size)[:, None]
    images: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for _ in range(count):
        pixels = (ramp + rng.integers(0, 55, (size, size))).astype("uint8")
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        images["file"].append(file.getvalue())
        images["floats"].append(pixels[..., None].astype("float32") / 255)
    return images


def export(folder: Path, images: list[Any], size: int) -> Path:
    """Writes version 1 of a calibrated model."""
    from keras_sspcab.applications import AutoEncoder
    from keras_sspcab.export import export_saved_model

    model = AutoEncoder((size, size, 1))
    normal = np.stack(images)
    model.compile()
    model.calibrate(normal)
    return export_saved_model(model, folder / NAME, 1, normal[:2]).path


def serve(folder: str, max_batch_size: int, pipe: Any) -> None:
    """Runs a server until the pipe says so; the process of one."""
    import tensorflow  # noqa: F401

    from keras_sspcab.export.serving import Server, ServerOptions

    options = ServerOptions(
        grpc_port=0,
        rest_port=0,
        max_batch_size=max_batch_size,
    )
    gc.freeze()  # as `keras-sspcab serve` does
    with Server(folder, options) as server:
        pipe.send({"grpc": server.grpc_target, "rest": server.rest_url})
        while pipe.recv() != "stop":
            pipe.send(time.process_time())


@contextlib.contextmanager
def serving(
    folder: Path, max_batch_size: int
) -> Iterator[tuple[dict[str, str], Clock]]:
    """Yields the addresses of a server in another process, and its clock."""
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(
        target=serve, args=(str(folder), max_batch_size, other)
    )
    process.start()
    try:
        if not pipe.poll(120):
            raise TimeoutError("The server has not come up.")

        def clock() -> float:
            pipe.send("time")
            return float(pipe.recv())

        yield pipe.recv(), clock
        pipe.send("stop")
    finally:
        process.join(20)
        process.kill()


def direct(path: Path, kind: str, images: list[Any]) -> Callable[[], Ask]:
    """Returns what makes askers of the SavedModel itself."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    signature, name = {
        "file": ("serving_bytes", "image_bytes"),
        "floats": ("serving_default", "image"),
    }[kind]

    def ask(index: int) -> Any:
        image = images[index % len(images)]
        # Of a list that holds an array, TensorFlow converts each value.
        batch = [image] if isinstance(image, bytes) else image[None]
        outputs = loaded.signatures[signature](**{name: tf.constant(batch)})
        return {key: value.numpy() for key, value in outputs.items()}

    return lambda: ask


def served(
    stack: contextlib.ExitStack, target: str, images: list[Any]
) -> Callable[[], Ask]:
    """Returns what makes askers of a server, each with its own client."""
    from keras_sspcab.export import Client

    def make() -> Ask:
        client = stack.enter_context(Client(target, model=NAME, retries=0))
        return lambda index: client.predict(images[index % len(images)])

    return make


def measure(
    askers: list[Ask],
    seconds: float,
    pool: concurrent.futures.Executor,
    clock: Clock,
) -> dict[str, float]:
    """Lets all askers ask at once, for a while."""
    barrier = threading.Barrier(len(askers) + 1)
    end = [0.0]

    def run(ask: Ask, first: int) -> list[float]:
        ask(first)
        times = []
        barrier.wait()
        barrier.wait()
        index = first
        while (start := time.perf_counter()) < end[0]:
            ask(index)
            times.append(time.perf_counter() - start)
            index += 1
        return times

    futures = [pool.submit(run, ask, 7 * i) for i, ask in enumerate(askers)]
    barrier.wait()
    worked = clock()
    start = time.perf_counter()
    end[0] = start + seconds
    barrier.wait()
    times = np.concatenate([future.result() for future in futures])
    elapsed = time.perf_counter() - start
    p50, p95, p99 = 1000 * np.percentile(times, [50, 95, 99])
    return {
        "requests_per_second": len(times) / elapsed,
        "cpu_ms": 1000 * (clock() - worked) / len(times),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
    }


def format_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| request | way | batches of | clients | requests/s | of direct "
        "| of single | CPU ms | of direct | p50 ms | p95 | p99 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['request']} | {row['way']} "
            f"| {row['max_batch_size'] or ''} | {row['clients']} "
            f"| {row['requests_per_second']:.0f} | {row['of_direct']} "
            f"| {row['gain_of_batching']} "
            f"| {row['cpu_ms']:.1f} | {row['cpu_of_direct']} "
            f"| {row['p50_ms']:.1f} | {row['p95_ms']:.1f} "
            f"| {row['p99_ms']:.1f} |"
        )
    return "\n".join(lines)


def compare(results: dict[Any, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Returns the medians of all cases, and their ratios within the turns."""

    def ratio(name: str, above: Any, below: Any) -> str:
        """Returns the median, and the least and largest."""
        if above not in results or below not in results or above == below:
            return ""
        low, middle, high = np.percentile(
            [
                a[name] / b[name]
                for a, b in zip(results[above], results[below], strict=True)
            ],
            [0, 50, 100],
        )
        return f"{middle:.2f} ({low:.2f} to {high:.2f})"

    rows = []
    for case, turns in results.items():
        (kind, way, max_batch_size), clients = case
        direct = (kind, "direct", None), clients
        single = (kind, way, min(BATCH_SIZES)), clients
        rows.append(
            {
                "request": kind,
                "way": way,
                "max_batch_size": max_batch_size,
                "clients": clients,
                **{
                    k: float(np.median([t[k] for t in turns])) for k in turns[0]
                },
                "of_direct": ratio("requests_per_second", case, direct),
                "gain_of_batching": ratio("requests_per_second", case, single),
                "cpu_of_direct": ratio("cpu_ms", direct, case),
            }
        )
    return rows


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()

    images = make_images(32, arguments.size)
    print(f"Load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = export(root, images["floats"], arguments.size)
        pool = stack.enter_context(
            concurrent.futures.ThreadPoolExecutor(max(CLIENTS))
        )
        clocks: dict[int | None, Clock] = {None: time.process_time}
        makers: dict[tuple[str, str, int | None], Callable[[], Ask]] = {
            (kind, "direct", None): direct(path, kind, images[kind])
            for kind in KINDS
        }
        for max_batch_size in BATCH_SIZES:
            targets, clocks[max_batch_size] = stack.enter_context(
                serving(root / NAME, max_batch_size)
            )
            for kind in KINDS:
                for way, target in targets.items():
                    makers[kind, way, max_batch_size] = served(
                        stack, target, images[kind]
                    )
        keys = sorted(makers, key=lambda key: (key[0], key[1], key[2] or 0))
        askers = {
            key: [makers[key]() for _ in range(max(CLIENTS))] for key in keys
        }
        # Those that are compared follow each other.
        results: dict[Any, list[dict[str, float]]] = {
            (key, count): [] for key in keys for count in CLIENTS
        }
        for _ in range(arguments.repetitions):
            for key, count in sorted(results, key=lambda c: (c[0][0], c[1])):
                results[key, count].append(
                    measure(
                        askers[key][:count],
                        arguments.seconds,
                        pool,
                        clocks[key[2]],
                    )
                )
    rows = [{**row, "size": arguments.size} for row in compare(results)]
    print(f"Load after: {os.getloadavg()[0]:.1f}")
    print(format_table(rows))
    write_rows(arguments.output, rows)


if __name__ == "__main__":
    main()
