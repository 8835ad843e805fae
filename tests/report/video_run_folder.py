"""A small run folder of videos, as `train` and `evaluate` leave it."""

import json
import shutil

import numpy as np
from PIL import Image

from keras_sspcab.metrics import macro_auc, micro_auc, normalize_per_video
from keras_sspcab.report.video_run import Frame, VideoScores
from keras_sspcab.runs import files

THRESHOLD = 3.0
FIRST = 2  # the first frame with a score
# A video's name that would break out of the markup.
HOSTILE = '"><img src=x onerror=alert(1)>'

CONFIG = """
[data]
path = "/data/crossing"
image_size = [24, 32]
channels = 3
clip_length = 3
stride = 1

[model]
name = "future_frame"
sspcab = "late"

[training]
epochs = 2
seed = 7
"""

# Labels and scores of the frames from FIRST on.
VIDEOS = {
    "walk": (
        [0, 0, 0, 1, 1, 1, 1, 0, 0, 0],
        [0.1, 0.5, -0.3, 4.0, 5.0, 2.0, 6.0, 0.4, 0.9, 0.2],
    ),
    "quiet": ([0] * 6, [0.3, 0.1, 3.5, 0.2, 0.6, -0.4]),
    "run": (
        [0, 1, 1, 0, 0, 1, 0, 0],
        [0.7, 1.1, 3.2, 4.5, 4.0, 0.2, 0.3, 0.6],
    ),
    HOSTILE: ([0, 0, 1, 1], [0.0, 1.0, 0.5, 2.0]),
}
SCORE_COLUMNS = (
    "video",
    "frame",
    "label",
    "anomaly_score",
    "is_anomalous",
    "raw_score",
    "video_score",
)
KEY_FRAME_COLUMNS = (
    "video",
    "frame",
    "label",
    "outcome",
    "anomaly_score",
    "is_anomalous",
    "image_file",
    "map_file",
    "mask_file",
)
OUTCOMES = {
    (1, 0): "missed",
    (0, 1): "false_alarm",
    (1, 1): "found",
    (0, 0): "passed",
    ("", 1): "flagged",
    ("", 0): "unflagged",
}


def write_video_run(
    folder,
    label=True,
    key_frames=True,
    maps=True,
    masks=True,
    calibrated=True,
    videos=VIDEOS,
):
    """Writes a run of the videos above; 64 by 48 pixels, maps 32 by 24."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "predictions").mkdir(parents=True)
    (folder / "config.toml").write_text(CONFIG, encoding="utf-8")
    scores = {name: np.array(values) for name, (_, values) in videos.items()}
    normalized = normalize_per_video(scores)
    rows = []
    for name, (labels, values) in videos.items():
        for number, (truth, score) in enumerate(
            zip(labels, values, strict=True)
        ):
            rows.append(
                {
                    "video": name,
                    "frame": FIRST + number,
                    "label": truth if label else "",
                    "anomaly_score": score,
                    "is_anomalous": int(calibrated and score >= THRESHOLD),
                    "raw_score": score / 10,
                    "video_score": float(normalized[name][number]),
                }
            )
    files.write_csv(str(folder / "predictions/scores.csv"), SCORE_COLUMNS, rows)
    if key_frames:
        write_key_frames(folder, rows, maps, masks)
    write_metrics(folder, videos, label, calibrated)
    files.write_csv(
        str(folder / "history.csv"),
        ["epoch", "loss", "sspcab_loss"],
        [
            {"epoch": 1, "loss": 0.5, "sspcab_loss": 0.1},
            {"epoch": 2, "loss": 0.2, "sspcab_loss": 0.05},
        ],
    )
    record = {
        "evaluated": {"time": "2025-03-04T05:06:07+00:00", "split": "test"},
        "versions": {"keras-sspcab": "0.1.0", "keras": "3.99.0"},
    }
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def write_key_frames(folder, rows, maps, masks):
    """Writes the frames of the highest and the lowest score of each video."""
    rng = np.random.default_rng(0)
    predictions = folder / "predictions"
    (predictions / "key_frames").mkdir()
    key_frames = []
    for name in dict.fromkeys(row["video"] for row in rows):
        own = sorted(
            (row for row in rows if row["video"] == name),
            key=lambda row: row["anomaly_score"],
        )
        for row in (own[0], own[-1]):
            stem = f"key_frames/{len(key_frames):03d}"
            truth = row["label"]
            pixels = rng.integers(90, 110, (48, 64, 3), dtype="uint8")
            mask = np.zeros((48, 64), bool)
            heat = rng.normal(0.0, 0.5, (24, 32))
            if truth == 1:
                mask[10:20, 30:50] = True
                pixels[mask] = 220
                heat[5:10, 15:25] += row["anomaly_score"]
            Image.fromarray(pixels).save(predictions / f"{stem}.png")
            if maps:
                np.save(predictions / f"{stem}.npy", heat.astype("float16"))
            has_mask = masks and truth == 1
            if has_mask:
                Image.fromarray(mask.astype("uint8") * 255).save(
                    predictions / f"{stem}_mask.png"
                )
            key_frames.append(
                {name: row.get(name) for name in KEY_FRAME_COLUMNS}
                | {
                    "outcome": OUTCOMES[truth, row["is_anomalous"]],
                    "image_file": f"{stem}.png",
                    "map_file": f"{stem}.npy" if maps else "",
                    "mask_file": f"{stem}_mask.png" if has_mask else "",
                }
            )
    files.write_csv(
        str(predictions / "key_frames.csv"), KEY_FRAME_COLUMNS, key_frames
    )


def write_metrics(folder, videos, label, calibrated):
    labels = {name: np.array(truth) for name, (truth, _) in videos.items()}
    scores = {name: np.array(values) for name, (_, values) in videos.items()}
    num_scored = sum(map(len, labels.values()))
    num_abnormal = sum(int(truth.sum()) for truth in labels.values())
    per_video = {
        name: {
            "num_frames": FIRST + len(truth),
            "num_scored_frames": len(truth),
            "num_normal_frames": int((truth == 0).sum()) if label else 0,
            "num_abnormal_frames": int(truth.sum()) if label else 0,
        }
        for name, truth in labels.items()
    }
    metrics = {
        "kind": "video",
        "num_test_videos": len(videos),
        "num_frames": num_scored + FIRST * len(videos),
        "num_scored_frames": num_scored,
        "num_normal_frames": num_scored - num_abnormal if label else 0,
        "num_abnormal_frames": num_abnormal if label else 0,
        "per_video": per_video,
        "conventions": {
            "normalization": "per_video",
            "smoothing": "median 17",
            "single_class": "skip",
            "frames_dropped": FIRST,
            "regions": "anomaly maps cut at 4 levels",
            "tracks": "masks" if label else "none",
        },
        "calibration": {
            "threshold": THRESHOLD if calibrated else None,
            "pixel_threshold": 2.5 if calibrated else None,
        },
    }
    if label and 0 < num_abnormal < num_scored:
        normalized = normalize_per_video(scores)
        metrics |= {
            "micro_auc": micro_auc(normalized, labels).value,
            "streaming_micro_auc": micro_auc(scores, labels).value,
            "rbdc": 0.123,
            "tbdc": 0.456,
        }
        macro = macro_auc(normalized, labels, single_class="skip")
        metrics["macro_auc"] = macro.value
        for name, auc in macro.per_video.items():
            if auc is not None:
                per_video[name]["auc"] = auc
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")


def scored_video(labels, scores, threshold=THRESHOLD):
    """A video whose first scored frame is number 4."""
    frames = [
        Frame(4 + i, label, score, score >= threshold, score)
        for i, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]
    return VideoScores("v", None, None, frames)
