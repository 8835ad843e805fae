"""A run of several products: a run of each, and one model of them all."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_sspcab import files
from keras_sspcab.data import ImageFolder, scan_image_folder
from keras_sspcab.data.file_system import standardize_path
from keras_sspcab.data.image_files import brightest_value
from keras_sspcab.data.parallel import parallel_map
from keras_sspcab.data.scanning import find_products
from keras_sspcab.hosts import FeatureModel, ProductModel, get_application
from keras_sspcab.metrics.registry import metrics_of
from keras_sspcab.optional_inputs import product_index
from keras_sspcab.preprocessing import WHITE_LEVELS, Preprocessing
from keras_sspcab.progress import Progress
from keras_sspcab.runs.calibration import (
    FIRST,
    restore_calibration,
    save_model,
)
from keras_sspcab.runs.config import Config, ConfigError
from keras_sspcab.runs.evaluation import evaluate_run
from keras_sspcab.runs.folder import RunFolder, now
from keras_sspcab.runs.models import load_detector
from keras_sspcab.runs.parsing import (
    CHANGE_NO_RESULT,
    differences,
    write_config,
)
from keras_sspcab.runs.sources import source_of
from keras_sspcab.runs.training import take_moved_data, train_run
from keras_sspcab.scoring import Calibration
from keras_sspcab.scoring.recognition import Recognition

# What is counted of the test images of each product.
_COUNTS = ("num_test_images", "num_normal_images", "num_defective_images")


def train_products(
    run: RunFolder,
    config: Config,
    resume: bool,
    progress: Progress,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Trains a run of each product, and makes one model of theirs.

    Those that are finished, with the same settings, stay as they are; so does
    the model of all, if none is new.
    """
    _check(config)
    was_finished = run.is_finished
    found = find_products(config.data.path)
    # A folder that cannot be used is told before it has a number.
    folders = {name: scan_image_folder(p) for name, p in found.items()}
    # A product keeps its index when others are added.
    known = [
        name
        for name in run.record.get("products", [])
        if name in found or run.product(name).is_finished
    ]
    if missing := [name for name in known if name not in found]:
        raise ValueError(
            "Products of a run keep their numbers, and are told apart by their "
            f"images. {config.data.path} has no folder of: "
            f"{', '.join(missing)}. Put it back, or start a new run"
        )
    if any(run.product(name).is_finished for name in known):
        _refuse_thresholds(run, config)
    white = config.data.white_level or _white_of_all(run, known, folders)
    if resume and run.exists:
        write_config(run.file("config.toml"), config)
    else:
        run.start(config)
    names = [*known, *(name for name in found if name not in known)]
    run.update_record(
        state="training",
        products=names,
        data={"root": standardize_path(config.data.path)},
    )
    for number, name in enumerate(names, 1):
        part = run.product(name)
        settings = _settings_of(config, found[name], white)
        if part.is_finished and _stays(part, settings):
            progress.message(f"Product {name}: finished, and left as it is.")
            continue
        progress.message(f"Product {number} of {len(names)}: {name}")
        train_run(part, settings, part.exists, progress, callbacks)
        # The size may have been found; it is that of all.
        size = {"image_size": part.saved_config.data.image_size}
        data = config.data.model_copy(update=size)
        config = config.model_copy(update={"data": data})
        write_config(run.file("config.toml"), config)
    if was_finished and names == known and not _newer_parts(run):
        run.update_record(state="finished")
        return
    recognition = _join(run, names, progress)
    run.update_record(
        state="finished",
        finished=now(),
        recognition=dataclasses.asdict(recognition),
    )


def _check(config: Config) -> None:
    """Raises a ConfigError for what several products cannot have."""
    host = get_application(config.model.name)
    if not issubclass(host, FeatureModel):
        raise ConfigError(
            "Several products share a backbone of frozen features, which "
            "multiscale_padim, padim and patchcore have. Received: the model "
            f"{config.model.name!r}. Take one of these, or a run for each "
            "product"
        )
    if config.needs_inspection:
        raise ConfigError(
            "Tiles, regions, alignments and padding are those of one product. "
            "Received: a setting of [inspection], or data.fit='pad', with "
            "data.layout='products'. Leave it out, or take a run for each "
            "product"
        )


def _refuse_thresholds(run: RunFolder, config: Config) -> None:
    for name, (old, new) in differences(run.saved_config, config).items():
        if name.startswith("calibration."):
            raise ConfigError(
                "Products that are finished keep their thresholds; "
                "`keras-sspcab calibrate` changes them. Received: "
                f"{name}={new!r}, before {old!r}. Leave it out"
            )


def _settings_of(config: Config, path: str, white: int) -> Config:
    own = {"path": path, "layout": "auto", "white_level": white}
    data = config.data.model_copy(update=own)
    return config.model_copy(update={"data": data})


def _white_of_all(
    run: RunFolder, known: Sequence[str], folders: Mapping[str, ImageFolder]
) -> int:
    """Returns the white level that all products are read by.

    It is that of the products which are known already, or covers the normal
    images of all. Images that a product has learned from are not read again.
    """
    begun = [
        part
        for part in map(run.product, known)
        if "preprocessing" in part.record.get("data", {})
    ]
    new = dict(folders)
    for part in begun:
        source = source_of(part.config, part)
        if source.is_of_training(folders[part.product_name]):
            del new[part.product_name]
    paths = [s.path for f in new.values() for s in (*f.train, *f.validation)]
    values = parallel_map(_brightest, paths, "Measuring images")
    brightest = max(values, default=0)
    needed = Preprocessing.covering(brightest or WHITE_LEVELS[-1]).white_level
    if not begun:
        return needed
    white: int = begun[0].record["data"]["preprocessing"]["white_level"]
    if brightest > white:
        raise ConfigError(
            f"The products of {run.path} are read with white at {white}, and "
            f"there are normal images with values up to {brightest} now. Start "
            "a new run, which measures all of them, or one with "
            f"data.white_level={needed}"
        )
    return white


def _brightest(path: str) -> int:
    try:
        return brightest_value(path)
    except ValueError:
        return 0  # whoever reads it is told


def _stays(part: RunFolder, settings: Config) -> bool:
    """Whether a finished product was fitted so; thresholds may differ.

    Images that have only moved are known again, and sought there from now on.
    """
    free = ("calibration", "evaluation", "tracking")
    changed = {
        name
        for name in differences(part.config, settings)
        if not name.startswith(free)
    }
    how = part.record.get("data", {}).get("preprocessing", {})
    if how.get("white_level") == settings.data.white_level:
        # It was measured.
        changed.discard("data.white_level")
    if not changed <= CHANGE_NO_RESULT:
        return False
    if "data.path" not in changed:
        return True
    data = part.config.data.model_copy(update={"path": settings.data.path})
    moved = part.config.model_copy(update={"data": data})
    return take_moved_data(part, moved)


def _parts(run: RunFolder) -> dict[str, RunFolder]:
    """Returns the runs of the products, in the order of the model."""
    return {name: run.product(name) for name in run.record["products"]}


def _join(
    run: RunFolder, names: Sequence[str], progress: Progress
) -> Recognition:
    """Makes and saves the model of all products; learns to tell them apart."""
    models: dict[str, Any] = {
        name: load_detector(run.product(name).path) for name in names
    }
    model = ProductModel.join(models)
    normal = {}
    for name, part in models.items():
        folder = run.product(name)
        source = source_of(folder.config, folder, part)
        images = source.scoring_dataset(source.split().train)
        normal[name] = progress.track(images, f"Images to recognize {name} by")
    recognition = model.fit_recognition(normal)
    # What was measured is of the model that is replaced.
    with files.set_aside(run.file("metrics.json")):
        save_model(run, model)
    progress.message(
        f"One model of {len(names)} products, {model.count_params():,} "
        f"parameters: {', '.join(names)}. {recognition.describe()}"
    )
    return recognition


def is_joined(run: RunFolder) -> bool:
    """Whether the model of a finished run is that of all products as they are.

    These are those that are in its data now.
    """
    try:
        found = set(find_products(run.config.data.path))
    except (ValueError, OSError):
        # The data of the training may be gone.
        found = set()
    return found <= {*_parts(run)} and not _newer_parts(run)


def _newer_parts(run: RunFolder) -> list[str]:
    """Returns the products whose models are newer than that of all, or gone."""
    joined = os.path.getmtime(run.file("model.keras"))
    files_of = {n: p.file("model.keras") for n, p in _parts(run).items()}
    return [
        name
        for name, file in files_of.items()
        if not os.path.exists(file) or os.path.getmtime(file) > joined
    ]


def calibrate_products(
    run: RunFolder,
    product: str | None,
    calibrate: Callable[[RunFolder], Calibration],
) -> Calibration:
    """Calibrates the run of one product, or of each; renews the model.

    Returns the calibration of the product, or that of all.
    """
    model: Any = load_detector(run.path)
    parts = _parts(run)
    chosen = parts
    if product is not None:
        name = model.products[product_index(model.products, product)]
        chosen = {name: parts[name]}
    before = {one.name: one for one in model.calibration.products}
    former = {
        name: load_detector(part.path).calibration.name or FIRST
        for name, part in chosen.items()
    }
    changed: dict[str, Calibration] = {}
    try:
        for name, part in chosen.items():
            with part.locked():
                changed[name] = calibrate(part)
    except BaseException:
        # All or none: the runs of the products and the model must agree.
        for name in changed:
            restore_calibration(parts[name], former[name])
        raise
    model.calibration = Calibration.of_products({**before, **changed})
    save_model(run, model)
    if product is not None:
        return changed[name]
    # Products that come later shall have the same.
    section = next(iter(parts.values())).saved_config.calibration
    write_config(
        run.file("config.toml"),
        run.saved_config.model_copy(update={"calibration": section}),
    )
    return model.calibration


def evaluate_products(
    run: RunFolder,
    config: Config,
    progress: Progress,
    as_published: bool = False,
) -> dict[str, Any]:
    """Evaluates the run of each product; writes the mean of their metrics.

    Also how well products are recognized in these images.
    """
    model: Any = load_detector(run.path)
    parts, path = _parts(run), run.file("metrics.json")
    newer = _newer_parts(run)
    if newer or not run.is_finished:
        warnings.warn(
            f"The model of all products in {run.path} is older than those of: "
            f"{', '.join(newer) or 'a training that goes on'}. "
            "These are measured. Resume the run, which joins them again",
            stacklevel=3,
        )
    folders = None
    if config.data.path != run.config.data.path:
        folders = find_products(config.data.path)
        if unknown := [name for name in folders if name not in parts]:
            raise ValueError(
                f"{config.data.path} has folders of products that the model "
                f"does not know. Received: {', '.join(unknown)}. It knows: "
                f"{', '.join(parts)}"
            )
    per_product: dict[str, Any] = {}
    seen: dict[str, np.ndarray] = {}
    splits: dict[str, None] = {}
    for name, part in parts.items():
        if folders is not None and name not in folders:
            continue
        data: dict[str, Any] = {"on_error": config.data.on_error}
        if folders is not None:
            data["path"] = folders[name]
        settings = part.config.model_copy(
            update={
                "data": part.config.data.model_copy(update=data),
                "evaluation": config.evaluation,
            }
        )
        progress.message(f"Product {name}")
        metrics = evaluate_run(part, settings, progress, as_published)
        kept = [*_COUNTS, *(m.key for m in metrics_of("image", metrics))]
        per_product[name] = {key: metrics[key] for key in kept}
        source: Any = source_of(settings, part, model)
        samples, split, _ = source.samples_to_evaluate()
        splits[split] = None
        seen[name] = model.recognize(source.whole_images(samples))
    recognition = Recognition.count(model.products, seen)
    progress.message(recognition.describe())
    values = per_product.values()
    shared = [
        metric.key
        for metric in metrics_of("image")
        if all(metric.key in one for one in values)
    ]
    metrics = {
        **{key: sum(one[key] for one in values) for key in _COUNTS},
        **{key: float(np.mean([one[key] for one in values])) for key in shared},
        "per_product": per_product,
        "recognition": {
            **dataclasses.asdict(recognition),
            "accuracy": recognition.accuracy,
        },
        "calibration": model.calibration.summary(),
        "preprocessing": model.preprocessing.to_dict(),
    }
    files.write_json(path, metrics)
    root = standardize_path(config.data.path)
    split = " and ".join(splits)
    run.update_record(evaluated={"split": split, "root": root, "time": now()})
    return metrics
