"""Small run folders, as `train` and `evaluate` leave them."""

import json
import os
import shutil
import xml.etree.ElementTree as ET

import numpy as np
from PIL import Image

from keras_sspcab import files
from keras_sspcab.metrics import (
    PixelScores,
    macro_auc,
    micro_auc,
    normalize_per_video,
    precision_recall_curve,
    roc_curve,
)
from keras_sspcab.report import write_report
from keras_sspcab.runs import outputs
from keras_sspcab.runs.outputs import FrameScore, ImageScore, KeyFrame

THRESHOLD = 3.0
# Names that would break out of the markup.
HOSTILE = '"><img src=x onerror=alert(1)>.png'
HOSTILE_DEFECT = "<script>alert(2)</script>"

CONFIG = """
[data]
path = "/data/{data}"
image_size = [24, 32]
channels = {channels}
clip_length = 3
stride = 1

[model]
name = "{model}"
sspcab = "late"
smoothing = 5

[training]
epochs = 3
seed = 7
"""
RECORD = {
    "evaluated": {"time": "2025-03-04T05:06:07+00:00", "split": "test"},
    "versions": {"keras-sspcab": "0.1.0", "keras": "3.99.0"},
}

# Name, label, kind of defect and score.
IMAGES = [
    ("good/000.png", 0, "good", 0.2),
    ("good/001.png", 0, "good", 4.5),
    ("good/002.png", 0, "good", -0.7),
    ("good/003.png", 0, "good", 3.5),
    ("scratch/000.png", 1, "scratch", 9.0),
    ("scratch/001.png", 1, "scratch", 2.9),
    ("scratch/002.png", 1, "scratch", 1.1),
    (HOSTILE, 1, HOSTILE_DEFECT, 6.0),
]

FIRST = 2  # the first frame with a score
# Labels and scores of the frames from there on.
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


def write_image_run(
    folder, label=True, maps=True, masks=True, curves=True, images=IMAGES
):
    """Writes a run of images; 64 by 48 pixels, maps 32 by 24."""
    rng = np.random.default_rng(0)
    predictions = _start(folder, data="bolts", channels=1, model="autoencoder")
    (predictions / "maps").mkdir()
    rows, pixels = [], PixelScores()
    for number, (name, truth, defect, score) in enumerate(images):
        path = folder / "images" / name
        mask_path = folder / "masks" / f"{number}.png"
        map_path = predictions / f"maps/{number:06d}.npy"
        heat = _draw(rng, path, mask_path, truth, score)
        outputs.write_map(str(map_path), heat)
        mask = np.zeros((24, 32), bool)
        mask[5:10, 15:25] = truth
        pixels.add(mask, heat)
        rows.append(
            ImageScore(
                path=str(path),
                label=truth if label else None,
                defect=defect if label else "",
                score=score,
                is_anomalous=score >= THRESHOLD,
                raw_score=score / 10,
                mask_path=str(mask_path) if truth and masks else None,
                map_path=str(map_path) if maps else None,
            )
        )
    outputs.write_rows(str(predictions), ImageScore, rows)
    if curves and label:
        labels = [truth for _, truth, _, _ in images]
        scores = [score for *_, score in images]
        all_curves = _rankings("image", labels, scores)
        if masks and maps:
            all_curves |= {
                "pixel_roc": pixels.roc_curve(),
                "pixel_precision_recall": pixels.precision_recall_curve(),
                "pro": pixels.pro_curve(),
            }
        outputs.write_curves(str(predictions), all_curves)
    metrics = {
        "num_test_images": len(images),
        "calibration": {"threshold": THRESHOLD, "pixel_threshold": 2.5},
    }
    if label:
        metrics |= {
            "image_auroc": 0.6875,
            "image_ap": 0.8,
            "image_f1": 0.75,
            "image_f1_threshold": 1.1,
            "pixel_auroc": 0.987,
            "pixel_ap": 0.9,
            "aupro": 0.95,
            "detection_rate": 0.5,
            "per_defect": {
                "scratch": {"image_auroc": 0.6, "aupro": 0.91},
                HOSTILE_DEFECT: {"image_auroc": 1.0, "aupro": 0.97},
            },
        }
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return folder


def write_video_run(
    folder, label=True, maps=True, masks=True, calibrated=True, videos=VIDEOS
):
    """Writes a run of the videos above; 64 by 48 pixels, maps 32 by 24."""
    predictions = _start(
        folder, data="crossing", channels=3, model="future_frame"
    )
    labels = {name: np.array(truth) for name, (truth, _) in videos.items()}
    scores = {name: np.array(values) for name, (_, values) in videos.items()}
    whole = normalize_per_video(scores)
    rows = [
        FrameScore(
            video=name,
            frame=FIRST + i,
            label=int(labels[name][i]) if label else None,
            score=score,
            is_anomalous=bool(calibrated and score >= THRESHOLD),
            raw_score=score / 10,
            video_score=float(whole[name][i]),
        )
        for name in videos
        for i, score in enumerate(scores[name].tolist())
    ]
    outputs.write_rows(str(predictions), FrameScore, rows)
    _write_key_frames(predictions, rows, maps, masks)
    all_labels = np.concatenate(list(labels.values()))
    num_abnormal, num_scored = int(all_labels.sum()), all_labels.size
    metrics = {
        "kind": "video",
        "num_test_videos": len(videos),
        "num_frames": num_scored + FIRST * len(videos),
        "num_scored_frames": num_scored,
        "per_video": {
            name: {
                "num_frames": FIRST + len(truth),
                "num_scored_frames": len(truth),
            }
            for name, truth in labels.items()
        },
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
        macro = macro_auc(whole, labels, single_class="skip")
        metrics |= {
            "micro_auc": micro_auc(whole, labels).value,
            "macro_auc": macro.value,
            "streaming_micro_auc": micro_auc(scores, labels).value,
            "rbdc": 0.123,
            "tbdc": 0.456,
        }
        for name, auc in macro.per_video.items():
            if auc is not None:
                metrics["per_video"][name]["auc"] = auc
        outputs.write_curves(
            str(predictions),
            _rankings("frame", all_labels, [r.video_score for r in rows])
            | _rankings("streaming", all_labels, [r.score for r in rows]),
        )
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return folder


def change_metrics(folder, **values):
    """Changes entries of `metrics.json`; None removes one."""
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text("utf-8")) | values
    metrics = {key: v for key, v in metrics.items() if v is not None}
    path.write_text(json.dumps(metrics), encoding="utf-8")


def _start(folder, **config):
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "predictions").mkdir(parents=True)
    text = CONFIG.format(**config)
    (folder / "config.toml").write_text(text, encoding="utf-8")
    (folder / "run.json").write_text(json.dumps(RECORD), encoding="utf-8")
    columns = ("epoch", "loss", "sspcab_loss")
    rows = [(1, 0.5, 0.1), (2, 0.2, 0.05), (3, 0.1, 0.02)]
    files.write_csv(
        str(folder / "history.csv"),
        columns,
        [dict(zip(columns, row, strict=True)) for row in rows],
    )
    return folder / "predictions"


def _draw(rng, path, mask_path, truth, score):
    """Writes an image and its mask; returns its anomaly map."""
    pixels = rng.integers(90, 110, (48, 64), dtype="uint8")
    mask = np.zeros((48, 64), bool)
    heat = rng.normal(0.0, 0.5, (24, 32))
    if truth:
        mask[10:20, 30:50] = True
        pixels[mask] = 220
        heat[5:10, 15:25] += score
    for file, array in ((path, pixels), (mask_path, mask)):
        os.makedirs(os.path.dirname(file), exist_ok=True)
        Image.fromarray(array).save(file)
    return heat


def _rankings(name, labels, scores):
    return {
        f"{name}_roc": roc_curve(labels, scores),
        f"{name}_precision_recall": precision_recall_curve(labels, scores),
    }


def _write_key_frames(predictions, rows, maps, masks):
    """Writes the frames of the highest and the lowest score of each video."""
    rng = np.random.default_rng(0)
    (predictions / "key_frames").mkdir()
    key_frames = []
    for name in dict.fromkeys(row.video for row in rows):
        own = sorted(
            (row for row in rows if row.video == name), key=lambda r: r.score
        )
        for row in (own[0], own[-1]):
            stem = str(predictions / f"key_frames/{len(key_frames):03d}")
            heat = _draw(
                rng, f"{stem}.png", f"{stem}_mask.png", row.label, row.score
            )
            outputs.write_map(f"{stem}.npy", heat)
            has_mask = masks and row.label == 1
            key_frames.append(
                KeyFrame(
                    video=name,
                    frame=row.frame,
                    label=row.label,
                    score=row.score,
                    is_anomalous=row.is_anomalous,
                    path=f"{stem}.png",
                    mask_path=f"{stem}_mask.png" if has_mask else None,
                    map_path=f"{stem}.npy" if maps else None,
                )
            )
    outputs.write_rows(str(predictions), KeyFrame, key_frames)


def page_of(folder, **options):
    return write_report(folder, **options).read_text("utf-8")


def texts(svg):
    """Returns the texts in an SVG picture."""
    return ["".join(e.itertext()) for e in ET.fromstring(svg).iter("text")]
