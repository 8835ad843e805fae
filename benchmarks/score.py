"""Measures how many images a second `keras-sspcab score` scores.

Run: python -m benchmarks.score [--output x.csv] [--hosts 1 2]
     python -m benchmarks.score --driver 100000 1000000

Made-up gray PNGs and the plain auto-encoder for images of their size. The
engine `local` uses all cores in one process; `ray` starts on this machine, with
one core for each worker, whose start (of Ray, TensorFlow and the model) is part
of the time. The rate behind it counts from the first finished shard on.

`--hosts` joins so many hosts to a cluster of Ray, each with one worker, in a
network namespace and with temporary files of its own (Linux, as root), and
counts what passes between them. They share the cores of this machine.

`--driver` measures what grows with the number of images but not with that of
workers: to list them, to start and continue a table, and to check it. The
images are empty files, the scores made up.

Prints a Markdown table, of medians over repetitions.
"""

import argparse
import contextlib
import functools
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

# Ray's workers would give way to all else on this machine, at niceness 15.
os.environ.setdefault("RAY_worker_niceness", "0")

import numpy as np
from PIL import Image

from benchmarks.common import memory, option_parser, write_rows
from keras_sspcab.applications import AutoEncoder
from keras_sspcab.compare.tables import markdown
from keras_sspcab.export import load_scorer
from keras_sspcab.scale import RayOptions, ScoringJob, score_shards

# Name: engine and number of workers.
CASES = {
    "local": ("local", None),
    "ray, 1 worker": ("ray", 1),
    "ray, 2 workers": ("ray", 2),
    "ray, 4 workers": ("ray", 4),
}
# That of the bridge; hosts count on from it.
NETWORK, PORT = "10.91.73", 6399
# Runs a command that sees none of the other hosts' temporary files.
OWN_FILES = 'mount -t tmpfs tmpfs "$RAY_TMPDIR" && exec "$@"'


def write_images(folder: Path, count: int, size: int) -> None:
    """Writes noise on gradients, so that a PNG costs what a photograph does."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, size)[:, None]
    for i in range(count):
        pixels = ramp + rng.integers(0, 55, (size, size))
        Image.fromarray(pixels.astype("uint8")).save(folder / f"{i:06d}.png")


@contextlib.contextmanager
def hosts(count: int) -> Iterator[str]:
    """Starts a Ray cluster of `count` hosts; yields the address of its head.

    Call it once in a process: Ray crashed here in a second cluster.
    """

    def ip(command: str) -> None:
        subprocess.run(["ip", *command.split()], check=True)

    def ray(place: str, *arguments: str) -> Any:
        command = [
            *place.split(),
            *(["sh", "-c", OWN_FILES, "sh"] if place else []),
            sys.executable.replace("python3", "python"),
            *("-m", "ray.scripts.scripts", "start", "--block"),
            *("--disable-usage-stats", "--object-store-memory=100000000"),
            *arguments,
        ]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    # Nobody else is on this network.
    os.environ["RAY_AUTH_MODE"] = "disabled"
    address = f"{NETWORK}.1:{PORT}"
    with contextlib.ExitStack() as stack:
        # Ray leaves the address of a cluster there for later programs, and
        # nodes that share it take each other's sockets.
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))
        os.environ["RAY_TMPDIR"] = folder

        def join(place: str, *arguments: str) -> None:
            process = ray(place, *arguments)
            stack.callback(process.wait)
            stack.callback(process.terminate)

        ip("link add kss type bridge")
        stack.callback(ip, "link del kss")
        ip(f"addr add {NETWORK}.1/24 dev kss")
        ip("link set kss up")
        join(
            "",
            "--head",
            f"--port={PORT}",
            f"--node-ip-address={NETWORK}.1",
            "--num-cpus=0",
            "--include-dashboard=false",
        )
        time.sleep(10)
        for i in range(2, count + 2):
            ip(f"netns add kss{i}")
            stack.callback(ip, f"netns del kss{i}")
            ip(f"link add kss{i} type veth peer name eth0 netns kss{i}")
            ip(f"link set kss{i} master kss up")
            for setting in (
                "link set lo up",
                f"addr add {NETWORK}.{i}/24 dev eth0",
                "link set eth0 up",
            ):
                ip(f"-n kss{i} {setting}")
            join(
                f"ip netns exec kss{i}",
                f"--address={address}",
                f"--node-ip-address={NETWORK}.{i}",
                "--num-cpus=1",
            )
        wait_for(address, count)
        yield address


def wait_for(address: str, count: int) -> None:
    import ray

    ray.init(address, log_to_driver=False, logging_level="ERROR")
    deadline = time.monotonic() + 120
    while ray.cluster_resources().get("CPU", 0) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"Of {count} hosts not all have come")
        time.sleep(0.5)
    ray.shutdown()


def network_bytes() -> int:
    """Returns what has passed the bridge so far; 0 without one."""
    return sum(
        int(path.read_text())
        for path in Path("/sys/class/net").glob("kss[0-9]*/statistics/?x_bytes")
    )


def measure(
    engine: str,
    options: RayOptions,
    root: Path,
    out: Path,
    shard_size: int,
    batch_size: int,
) -> dict[str, float]:
    """Scores all images once; returns seconds and rates."""
    model = str(root / "model.keras")
    start = time.perf_counter()
    scorer = load_scorer(model)
    job = ScoringJob.start(
        [root / "images"],
        functools.partial(load_scorer, model),
        scorer,
        out,
        shard_size,
        batch_size=batch_size,
    )
    times: list[float] = []
    traffic: list[int] = []

    def on_shard(shard: int) -> None:
        times.append(time.perf_counter())
        traffic.append(network_bytes())

    counts = score_shards(job, engine, scorer, options, on_shard)
    seconds = time.perf_counter() - start
    if counts.num_errors:
        raise ValueError(f"{counts.num_errors} images have no score")
    rest = counts.num_inputs - shard_size
    return {
        "seconds": seconds,
        "seconds_to_first_shard": times[0] - start,
        "images_per_second": counts.num_inputs / seconds,
        "images_per_second_after_first": rest / (times[-1] - times[0]),
        "kB_per_shard": (traffic[-1] - traffic[0]) / 1e3 / (len(times) - 1),
    }


def measure_driver(count: int, shard_size: int, root: Path) -> dict[str, Any]:
    """Returns processor seconds and memory of what workers do not share."""
    for number in range(count):
        path = root / f"images/{number // 1000:06d}/{number:09d}.png"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.touch()
    row: dict[str, Any] = {"images": count, "shard_size": shard_size}

    def timed(name: str, function: Callable[[], Any]) -> Any:
        Path("/proc/self/clear_refs").write_text("5")  # a new peak
        before, start = memory("VmRSS"), time.process_time()
        result = function()
        row[f"{name}_seconds"] = time.process_time() - start
        row[f"{name}_MB"] = memory("VmHWM") - before
        return result

    class MadeUp:
        image_size, channels, checksum = (64, 64), 1, "0" * 64

    def begin() -> ScoringJob:
        return ScoringJob.start(
            [root / "images"], MadeUp, MadeUp(), root / "out", shard_size
        )

    def write(job: ScoringJob) -> None:
        values = {"anomaly_score": 0.5, "is_anomalous": False, "raw_score": 0.5}
        values |= {"height": 64, "width": 64, "model_checksum": "0" * 64}
        for shard in range(job.plan.num_shards):
            paths = job.folder.inputs_of(shard)
            job.folder.write_part(shard, [{**values, "path": p} for p in paths])

    job = timed("start", begin)
    timed("write", lambda: write(job))
    job = timed("continue", begin)
    timed("check", lambda: score_shards(job))
    files = list((root / "out/scores").iterdir())
    row["bytes_per_row"] = sum(file.stat().st_size for file in files) / count
    return row


def format_table(rows: list[dict[str, Any]]) -> str:
    """Formats rows as a Markdown table, with a digit for small numbers."""

    def format_value(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.{2 if value < 10 else 0}f}"
        return str(value)

    return markdown(
        [*rows[0]], [[*map(format_value, row.values())] for row in rows]
    )


def measure_case(
    name: str,
    engine: str,
    options: RayOptions,
    root: Path,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Measures one engine; returns the medians over all repetitions."""
    results = [
        measure(
            engine,
            options,
            root,
            root / f"{name}-{repetition}",
            arguments.shard_size,
            arguments.batch_size,
        )
        for repetition in range(arguments.repetitions)
    ]
    medians = {
        key: float(np.median([result[key] for result in results]))
        for key in results[0]
    }
    return {"engine": name, **medians}


def measure_hosts(
    count: int, root: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Measures scoring on a Ray cluster of `count` hosts; returns medians."""
    with hosts(count) as address:
        options = RayOptions(address, num_workers=count)
        name = f"ray, hosts: {count}"
        return measure_case(name, "ray", options, root, arguments)


def measure_cases(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields a row of medians for each engine and each number of hosts."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root / "images", arguments.images, arguments.size)
        model = AutoEncoder((arguments.size, arguments.size, 1))
        model.save(root / "model.keras")

        for name in arguments.engines:
            engine, workers = CASES[name]
            options = RayOptions(num_workers=workers)
            yield measure_case(name, engine, options, root, arguments)
        for count in arguments.hosts:
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, spawn) as pool:
                row = pool.submit(measure_hosts, count, root, arguments)
                yield row.result()


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--engines", nargs="*", default=list(CASES))
    parser.add_argument("--hosts", nargs="*", type=int, default=[])
    parser.add_argument("--driver", nargs="*", type=int, default=[])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--shard-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()

    rows = []
    if arguments.driver:
        for count in arguments.driver:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure_driver(count, 1000, Path(folder)))
    else:
        for row in measure_cases(arguments):
            print(row, flush=True)
            rows.append(row)
    print(format_table(rows))
    write_rows(arguments.output, rows)


if __name__ == "__main__":
    main()
