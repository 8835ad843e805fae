"""Defects of ten pixels in large surfaces: in tiles, made small, one tile.

    python -m benchmarks.small_defects magnetic_tile [--output FILE.csv]
        [--picture FILE.webp]

The defects are real blowholes, the surfaces normal photographs that are
mirrored on, so that they have no seams; each is scored with and without.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from benchmarks.common import option_parser, report_values
from keras_sspcab.applications import MultiScalePaDiM, PatchCore
from keras_sspcab.data import resize, scan_image_folder
from keras_sspcab.data.image_files import read_pixels
from keras_sspcab.data.masks import load_mask
from keras_sspcab.hosts import InspectionModel
from keras_sspcab.report import overlay

OVERLAP = 0.25


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("data", type=Path, help="Folder of magnetic tiles.")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    rows = measure_surfaces(arguments.data, arguments.picture)
    report_values(arguments.output, rows)


def measure_surfaces(root: Path, picture: Path | None = None) -> list[Any]:
    """Scores surfaces of 3 x 3 tiles."""
    folder = scan_image_folder(str(root))
    rng = np.random.default_rng(0)
    train = [mirrored(read_photo(s)) for s in folder.train[::6]]
    good = [mirrored(read_photo(s)) for s in folder.test if not s.label]
    holes = [s for s in folder.test if s.defect == "blowhole"]
    pairs = [
        (good[n % len(good)], *blend(good[n % len(good)], sample, rng))
        for n, sample in enumerate(holes)
    ]
    length, side = len(good[0]), len(good[0]) // 3
    width = np.median([np.sqrt(mask.sum()) for _, _, mask in pairs])
    note = f"{len(pairs)} surfaces with a hole of {width:.0f} px (median), "
    note += "and the same without"
    rows: list[Any] = []
    for host in (PatchCore, MultiScalePaDiM):
        keras.utils.set_random_seed(0)
        size = (length, length)
        tiled = InspectionModel(host((side, side, 3)), size, OVERLAP)
        tiled.fit(np.stack(train))
        small = InspectionModel(host((side, side, 3)))
        small.fit(np.stack([made_small(image, side) for image in train]))
        for model in (tiled, small):
            model.calibrate()
        single = InspectionModel(tiled.host)
        found: dict[str, list[Any]] = {"large": [], "small": [], "tile": []}
        for clean, defective, mask in pairs:
            y, x = np.argwhere(mask).mean(axis=0).astype(int) - side // 2
            for image in (clean, defective):
                for name, model, part in (
                    ("large", tiled, image),
                    ("small", small, made_small(image, side)),
                    ("tile", single, image[y : y + side, x : x + side]),
                ):
                    outputs = model.predict_on_batch(part[np.newaxis])
                    found[name].append({k: v[0] for k, v in outputs.items()})
        scores = {
            name: np.array([float(one["raw_score"]) for one in each])
            for name, each in found.items()
        }
        for name, text in (
            ("large", "in tiles"),
            ("small", "made as small as a tile"),
            ("tile", "one tile around the hole"),
        ):
            labels = np.arange(len(scores[name])) % 2
            value = float(roc_auc_score(labels, scores[name]))
            rows.append((f"{tiled.name}: AUROC, {text}", value, note))
        ratio = np.median(scores["large"][1::2] / scores["tile"][1::2])
        rows.append((f"{tiled.name}: large against one tile", ratio, "median"))
        hits = [
            ndimage.binary_dilation(mask, iterations=8).flat[
                np.argmax(one["anomaly_map"])
            ]
            for one, (_, _, mask) in zip(
                found["large"][1::2], pairs, strict=True
            )
        ]
        rows.append((f"{tiled.name}: peak at the hole", np.mean(hits), "share"))
    if picture is not None:
        # The middle one: half of the holes are easier, half are harder.
        order = np.argsort(scores["large"][1::2])
        number = int(order[len(order) // 2])
        draw(
            picture,
            *pairs[number][1:],
            [
                (model, found[name][2 * number + 1])
                for name, model in (("small", small), ("large", tiled))
            ],
        )
    return rows


def read_photo(sample: Any) -> np.ndarray:
    pixels: np.ndarray = read_pixels(sample.path, 3).numpy()
    return pixels


def mirrored(photo: np.ndarray) -> np.ndarray:
    row = np.concatenate([photo, photo[:, ::-1], photo], axis=1)
    return np.concatenate([row, row[::-1], row])


def made_small(image: np.ndarray, side: int) -> np.ndarray:
    pixels: np.ndarray = resize(image, (side, side)).numpy()
    return pixels


def blend(
    surface: np.ndarray, sample: Any, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a surface with the defect of a photograph, and its mask."""
    photo = read_photo(sample)
    mask = load_mask(sample, photo.shape[:2]).mask
    (found,) = ndimage.find_objects(mask.astype(int))
    box = tuple(
        slice(max(0, part.start - 12), part.stop + 12) for part in found
    )
    part, hole = photo[box], mask[box]
    wide = ndimage.binary_dilation(hole, iterations=4)
    alpha = ndimage.gaussian_filter(wide.astype("float32"), 2)[..., None]
    margin = photo.shape[0] // 2
    y, x = (
        rng.integers(margin, total - margin - side)
        for total, side in zip(surface.shape[:2], hole.shape, strict=True)
    )
    place = (slice(y, y + hole.shape[0]), slice(x, x + hole.shape[1]))
    changed, whole = surface.copy(), np.zeros(surface.shape[:2], bool)
    # As bright as where it comes to.
    part = part - part[~wide].mean() + changed[place].mean()
    mixed = alpha * part + (1 - alpha) * changed[place]
    changed[place], whole[place] = mixed.clip(0, 1), hole
    return changed, whole


def draw(
    path: Path, image: np.ndarray, mask: np.ndarray, results: list[Any]
) -> None:
    """Shows an image with a ring around its hole, and heat maps beside it."""
    pixels = np.uint8(255 * image)
    pictures = [Image.fromarray(pixels)]
    y, x = np.argwhere(mask).mean(axis=0)
    ring = [x - 24, y - 24, x + 24, y + 24]
    ImageDraw.Draw(pictures[0]).ellipse(ring, outline="#966eff", width=3)
    texts = ["a surface with a hole, ringed"]
    for (model, outputs), name in zip(
        results, ("made small", "in tiles"), strict=True
    ):
        limit = 2 * model.calibration.pixel_threshold
        heat = overlay(pixels, outputs["anomaly_map"], limit)
        pictures.append(Image.fromarray(heat))
        verdict = "flagged" if outputs["is_anomalous"] else "missed"
        texts.append(f"{name}: {outputs['anomaly_score']:.1f}, {verdict}")
    sheet = Image.new("RGB", (1220, 430), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(17)
    for number, (part, text) in enumerate(zip(pictures, texts, strict=True)):
        pen.text((410 * number, 4), text, "#16191d", font)
        sheet.paste(part.resize((400, 400)), (410 * number, 30))
    sheet.save(path, quality=80, method=6)


if __name__ == "__main__":
    main()
