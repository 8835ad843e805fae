"""Measures RBDC and TBDC on large made-up test sets, on one core.

Run: python -m benchmarks.video_metrics [--output x.csv]

Each video has tracks of boxes that drift over 50 frames. A part of the
detections are boxes of the ground truth, moved a little; the others lie
anywhere, also in normal frames. Scores have four digits, so many are equal. The
case `crowd` puts all boxes and detections in few frames, with hundreds of
ground-truth boxes each. Videos are numbered, or named as in text files.

Prints a Markdown table of median times over repetitions. The peak of the memory
that is allocated beside the arguments is traced in a run of its own.
"""

import os
import time
import tracemalloc
from typing import Any

import numpy as np

from benchmarks.common import option_parser, write_rows
from keras_sspcab.metrics import rbdc_tbdc

BOX_COLUMNS = ("x_min", "y_min", "x_max", "y_max")
TRACK_LENGTH = 50

# Name: detections, frames, videos, tracks, whether videos are named.
CASES = {
    "avenue-like": (100_000, 15_324, 21, 60, True),
    "large": (1_000_000, 100_000, 100, 1_000, False),
    "large, named": (1_000_000, 100_000, 100, 1_000, True),
    "crowd": (200_000, 1_000, 4, 4_000, False),
}


def make_tracks(rng: Any, frames: int, videos: int, count: int) -> dict:
    """Returns tracks whose boxes drift through 640x360 pixels."""
    per_video = frames // videos
    start = rng.integers(0, per_video - TRACK_LENGTH + 1, count)
    corner = rng.uniform((0, 0), (500, 250), (count, 2))
    size = rng.uniform(20, 90, (count, 2))
    speed = rng.uniform(-2, 2, (count, 2))
    track, step = np.divmod(np.arange(count * TRACK_LENGTH), TRACK_LENGTH)
    low = np.rint(corner[track] + speed[track] * step[:, None])
    high = low + np.rint(size[track])
    boxes = np.hstack([low, high])
    return {
        "video": rng.integers(0, videos, count)[track],
        "track": track,
        "frame": start[track] + step,
        **dict(zip(BOX_COLUMNS, boxes.T, strict=True)),
    }


def make_detections(
    rng: Any, tracks: dict, frames: int, videos: int, count: int
) -> dict:
    """Returns detections, a fifth of them near the boxes of the tracks."""
    near = rng.integers(0, tracks["frame"].size, count // 5)
    rest = count - near.size
    low = rng.uniform((0, 0), (550, 270), (rest, 2))
    anywhere = np.hstack([low, low + rng.uniform(10, 90, (rest, 2))])
    moved = np.stack([tracks[name][near] for name in BOX_COLUMNS], axis=-1)
    moved = moved + rng.normal(0, 8, moved.shape)
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2])
    boxes = np.concatenate([moved, anywhere])
    scores = rng.normal(size=count)
    scores[: near.size] += 1.5
    video = rng.integers(0, videos, rest)
    frame = rng.integers(0, frames // videos, rest)
    columns = {
        "video": np.concatenate([tracks["video"][near], video]),
        "frame": np.concatenate([tracks["frame"][near], frame]),
        **dict(zip(BOX_COLUMNS, boxes.T, strict=True)),
        "score": scores.round(4),
    }
    order = rng.permutation(count)
    return {name: column[order] for name, column in columns.items()}


def name_videos(table: dict) -> dict:
    names = np.array([f"{number:02d}_0014" for number in range(1000)])
    return {**table, "video": names[table["video"]]}


def measure(name: str, repetitions: int) -> dict[str, Any]:
    """Times one case."""
    count, frames, videos, num_tracks, named = CASES[name]
    rng = np.random.default_rng(0)
    tracks = make_tracks(rng, frames, videos, num_tracks)
    detections = make_detections(rng, tracks, frames, videos, count)
    if named:
        tracks, detections = name_videos(tracks), name_videos(detections)
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        rbdc_tbdc(detections, tracks, frames)
        seconds.append(time.perf_counter() - start)
    tracemalloc.start()
    result = rbdc_tbdc(detections, tracks, frames)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "case": name,
        "detections": count,
        "frames": frames,
        "videos": videos,
        "tracks": num_tracks,
        "boxes": tracks["frame"].size,
        "seconds": float(np.median(seconds)),
        "peak_mib": peak / 2**20,
        "rbdc": result.rbdc,
        "tbdc": result.tbdc,
    }


def format_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| case | detections | frames | boxes | seconds | MiB | RBDC | TBDC |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['case']} | {row['detections']:,} | {row['frames']:,} "
            f"| {row['boxes']:,} | {row['seconds']:.2f} "
            f"| {row['peak_mib']:.0f} | {row['rbdc']:.3f} "
            f"| {row['tbdc']:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = []
    for name in arguments.cases:
        rows.append(measure(name, arguments.repetitions))
        print(rows[-1], flush=True)
    print(format_table(rows))
    write_rows(arguments.output, rows)


if __name__ == "__main__":
    main()
