"""Measures the embedded server against calling its SavedModel directly.

Run: python benchmarks/serving.py [--output x.csv]

Made-up gray PNGs, one in a request, and the plain auto-encoder for images of
their size. Two servers, each in a process of its own, wait all the time: one
joins requests into batches of up to 32, the other runs each by itself. Clients
are threads of this process, each with a connection of its own, which ask again
as soon as they have an answer. "direct" calls the SavedModel in this process,
from as many threads. Cases take turns, so that what else the machine does falls
on all of them; figures are medians over the turns.

Prints a Markdown table. The load of the machine is printed, too: servers,
clients and direct calls all share the same cores.
"""

import argparse
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

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
from PIL import Image

NAME = "model"
CLIENTS = (1, 4, 16)
BATCH_SIZES = (1, 32)

# What a request holds: the file, or its pixels as floats.
KINDS = ("file", "floats")

Ask = Callable[[int], Any]


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
        pipe.recv()


@contextlib.contextmanager
def serving(folder: Path, max_batch_size: int) -> Iterator[dict[str, str]]:
    """Yields the addresses of a server in another process."""
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(
        target=serve, args=(str(folder), max_batch_size, other)
    )
    process.start()
    try:
        if not pipe.poll(120):
            raise TimeoutError("The server has not come up.")
        yield pipe.recv()
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
    askers: list[Ask], seconds: float, pool: concurrent.futures.Executor
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
    start = time.perf_counter()
    end[0] = start + seconds
    barrier.wait()
    times = np.concatenate([future.result() for future in futures])
    elapsed = time.perf_counter() - start
    p50, p95, p99 = 1000 * np.percentile(times, [50, 95, 99])
    return {
        "requests_per_second": len(times) / elapsed,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
    }


def format_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| request | way | batches of | clients | requests/s | of direct "
        "| of single | p50 ms | p95 | p99 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        gain = row["gain_of_batching"]
        lines.append(
            f"| {row['request']} | {row['way']} "
            f"| {row['max_batch_size'] or ''} | {row['clients']} "
            f"| {row['requests_per_second']:.0f} | {row['of_direct']:.2f} "
            f"| {'' if gain is None else format(gain, '.2f')} "
            f"| {row['p50_ms']:.1f} | {row['p95_ms']:.1f} "
            f"| {row['p99_ms']:.1f} |"
        )
    return "\n".join(lines)


def compare(rows: list[dict[str, Any]]) -> None:
    """Adds the ratios to direct calls and to single runs."""

    def rate(row: dict[str, Any], **changes: Any) -> float | None:
        wanted = {
            key: {**row, **changes}[key]
            for key in ("request", "way", "max_batch_size", "clients")
        }
        for other in rows:
            if all(other[key] == value for key, value in wanted.items()):
                return other["requests_per_second"]
        return None

    for row in rows:
        own = row["requests_per_second"]
        base = rate(row, way="direct", max_batch_size=None)
        single = rate(row, max_batch_size=1)
        row["of_direct"] = own / base if base else None
        is_batched = row["max_batch_size"] == max(BATCH_SIZES) and single
        row["gain_of_batching"] = own / single if is_batched else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    images = make_images(32, arguments.size)
    print(f"Load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = export(root, images["floats"], arguments.size)
        pool = stack.enter_context(
            concurrent.futures.ThreadPoolExecutor(max(CLIENTS))
        )
        makers: dict[tuple[str, str, int | None], Callable[[], Ask]] = {
            (kind, "direct", None): direct(path, kind, images[kind])
            for kind in KINDS
        }
        for max_batch_size in BATCH_SIZES:
            targets = stack.enter_context(serving(root / NAME, max_batch_size))
            for kind in KINDS:
                for way, target in targets.items():
                    makers[kind, way, max_batch_size] = served(
                        stack, target, images[kind]
                    )
        askers = {
            key: [make() for _ in range(max(CLIENTS))]
            for key, make in makers.items()
        }
        cases = [(key, count) for key in askers for count in CLIENTS]
        results: dict[Any, list[dict[str, float]]] = {c: [] for c in cases}
        for _ in range(arguments.repetitions):
            for key, count in cases:
                results[key, count].append(
                    measure(askers[key][:count], arguments.seconds, pool)
                )
    rows = [
        {
            "request": key[0],
            "way": key[1],
            "max_batch_size": key[2],
            "clients": count,
            "size": arguments.size,
            **{
                name: float(np.median([r[name] for r in results[key, count]]))
                for name in results[key, count][0]
            },
        }
        for key, count in sorted(
            cases, key=lambda c: (KINDS.index(c[0][0]), c[0][1], c[0][2] or 0)
        )
    ]
    compare(rows)
    print(f"Load after: {os.getloadavg()[0]:.1f}")
    print(format_table(rows))
    if arguments.output:
        from keras_sspcab.runs.files import write_csv

        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_csv(str(arguments.output), list(rows[0]), rows)


if __name__ == "__main__":
    main()
