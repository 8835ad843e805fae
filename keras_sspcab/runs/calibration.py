"""Thresholds of a run: measured by its training, and anew without one."""

import dataclasses
import itertools
import os
import warnings
from collections.abc import Sequence
from typing import Any

from keras_sspcab import files
from keras_sspcab.checks import standardize_number
from keras_sspcab.data import ImageSample, MarkedImages
from keras_sspcab.data.file_system import scheme_of, standardize_path
from keras_sspcab.hosts import AnomalyModel
from keras_sspcab.progress import Progress
from keras_sspcab.runs.config import Config
from keras_sspcab.runs.folder import RunFolder
from keras_sspcab.runs.marks import (
    marks_of,
    read_marks,
    tell_missed,
    with_marks,
)
from keras_sspcab.runs.models import load_detector
from keras_sspcab.runs.parsing import load_config, write_config
from keras_sspcab.runs.sources import Source, source_of
from keras_sspcab.scoring import Calibration
from keras_sspcab.scoring.false_alarms import are_as_normal

#: What the calibration of the training is called.
FIRST = "training"

# What the names of those with false alarms from the field have besides.
_FEEDBACK = "+feedback"

#: What is counted, for progress.
FITTED, SCORED = "Fitting to normal batches", "Scoring normal batches"

# With fewer images, the threshold is little more than a guess.
_FEW_IMAGES = 20

# Numbers of images whose symmetries are looked for: fewer cannot tell, and more
# need none.
_LEAST_TO_COMPARE, _MOST_TO_COMPARE = 5, 50


def is_measured_on_own(name: str) -> bool:
    """Whether a calibration of this name was measured on the run's own data."""
    return (name or FIRST).partition("@")[0] == FIRST


def measured_on(
    model: AnomalyModel, source: Source, samples: Sequence[Any], split: str
) -> list[Any]:
    """Returns the normal samples that the thresholds were measured on.

    `split` says which they are; see `Source.samples_to_evaluate`.
    """
    name = model.calibration.name
    entries = {} if source.run is None else _entries(source.run)
    if path := entries.get(name, {}).get("data"):
        return source.lying_in(path, samples)
    is_own = (
        split == "validation"
        # Else each was scored by what others tell.
        and not model.calibrates_by_folds
        and is_measured_on_own(name.replace(_FEEDBACK, ""))
    )
    return list(samples) if is_own else []


def calibrate_on_own(
    model: AnomalyModel,
    source: Source,
    folder: Any,
    progress: Progress,
    extra_data: Any = None,
    seeks_symmetries: bool = False,
) -> str:
    """Calibrates on the normal data of a run; returns where they come from.

    On request few images are scored turned and mirrored as well.
    """
    if not model.calibrates_by_folds:
        held_out = source.scoring_dataset(folder.validation)
        held_out = progress.track(held_out, SCORED)
        _calibrate(model, source, held_out, extra_data)
        return "held out of the training"
    noun = _noun(source)
    progress.message(f"Fitting statistics to {len(folder.train)} normal {noun}")
    normal = source.scoring_dataset(folder.train, is_reread=True)
    host: Any = getattr(model, "host", model)
    host.variants = source.variants(folder)
    host.compares_variants = (
        seeks_symmetries
        # Tiles of an image are too much alike.
        and getattr(model, "tiles_per_image", 1) == 1
        and _LEAST_TO_COMPARE <= len(folder.train) <= _MOST_TO_COMPARE
        and not source.data.symmetric
    )
    model.fit_scoring(progress.track(normal, FITTED))
    _calibrate(model, source, None, extra_data)
    if model.calibration.stand_ins:
        return "of which changed copies stood in for others"
    return "each scored by the statistics of others"


def propose_symmetries(model: AnomalyModel, progress: Progress) -> None:
    """Names symmetries of few images, by how these scored when changed."""
    found: Any = getattr(getattr(model, "host", model), "fold_scores", None)
    changed = {} if found is None else found.changed
    names = [
        name
        for name, scores in changed.items()
        if are_as_normal(found.scores, scores)
    ]
    if names:
        words = {"rotate": "turned", "flip": "mirrored"}
        progress.message(
            f"These {len(found.scores)} images look as normal when they are "
            f"{' and '.join(words[name] for name in names)}. If parts may lie "
            f"so, train with --symmetric {','.join(names)}: few images tell "
            "more then."
        )


def tell_calibration(
    model: AnomalyModel, source: Source, origin: str, progress: Progress
) -> None:
    """Says what the thresholds are, and how far to trust them."""
    noun, calibration = _noun(source), model.calibration
    count = calibration.num_images
    progress.message(
        f"Calibrated on {count} normal {noun}, {origin}: anomalous "
        f"{calibration.describe_rule()}."
    )
    certainty = calibration.describe_false_alarms(noun)
    if not certainty:
        progress.message(
            "How many false alarms there will be is not known: the threshold "
            "of a region was set by hand."
        )
    elif count < _FEW_IMAGES:
        warnings.warn(f"{certainty}. More images help", stacklevel=2)
    else:
        progress.message(f"{certainty}.")


def calibrate_run(
    run: RunFolder,
    progress: Progress,
    data: str | None,
    false_alarms: float | None,
    decision: str | None,
    feedback: str | None,
) -> Calibration:
    """Measures new thresholds for a trained model; see `Run.calibrate`."""
    settings: dict[str, Any] = {}
    if false_alarms is not None:
        share = standardize_number(false_alarms, "false_alarms", 0, 1, 1)
        settings["calibration.quantile"] = 1.0 - share
    if decision is not None:
        settings["calibration.decision"] = decision
    config = load_config(run.file("config.toml"), settings)
    model = load_detector(run.path)
    before = model.calibration
    source = source_of(config, run, model)
    marked = None if feedback is None else read_marks(feedback, source)
    alarms = None if marked is None else _new_alarms(marked, run, source)
    root = None
    if data is None:
        label = FIRST
        folder = source.split()
        _require_same_data(run, source, folder)
        folder = with_marks(folder, source)
        origin = calibrate_on_own(model, source, folder, progress, alarms)
    else:
        label = os.path.basename(os.path.abspath(data))
        # That name stands for the run's own data.
        label = f"{label}-data" if label == FIRST else label
        root = standardize_path(data)
        root = root if scheme_of(root) else os.path.abspath(root)
        samples = _new_samples(source, data, progress)
        normal = source.scoring_dataset(samples)
        _calibrate(model, source, progress.track(normal, SCORED), alarms)
        origin = f"in {data}"
    if alarms is not None:
        label += _FEEDBACK
        origin += f", and marked as false alarms in {feedback}"
    time = files.now()
    after, model.calibration = model.calibration, before
    name = new_name(run, model, f"{label}@{time}")
    calibration = dataclasses.replace(after, name=name)
    install(run, model, calibration, config, time, root)
    tell_calibration(model, source, origin, progress)
    if marked is not None:
        tell_missed(model, source, marked, progress)
    return calibration


def restore_calibration(run: RunFolder, name: str) -> Calibration:
    """Puts a former calibration back; see `Run.calibrate`."""
    model = load_detector(run.path)
    known = _history(run, model)
    if name not in known:
        raise ValueError(
            f"The run {run.path} has no calibration {name!r}. Received: "
            f"{name!r}. It has: {', '.join(known)}"
        )
    calibration = Calibration.from_dict(known[name])
    settings: dict[str, Any] = {}
    # One that was set by hand leaves the rule of the run as it is.
    if calibration.quantile is not None:
        names = ("quantile", "pixel_quantile", "decision")
        settings = {f"calibration.{n}": getattr(calibration, n) for n in names}
    config = load_config(run.file("config.toml"), settings)
    install(run, model, calibration, config, known[name]["time"])
    return calibration


def save_model(run: RunFolder, model: AnomalyModel) -> None:
    """Writes the model of a run."""
    with files.replacing(run.file("model.keras")) as temporary:
        model.save(temporary)


def _calibrate(
    model: AnomalyModel, source: Source, data: Any, extra_data: Any = None
) -> None:
    limits = source.config.calibration
    model.calibrate(
        data,
        limits.quantile,
        limits.pixel_quantile,
        decision=limits.decision,
        extra_data=extra_data,
    )


def _noun(source: Source) -> str:
    return {"videos": "frames"}.get(source.noun, source.noun)


def _require_same_data(run: RunFolder, source: Source, folder: Any) -> None:
    """Raises a ValueError if there are other normal samples than trained on."""
    known = run.record.get("data", {}).get(f"training_{source.noun}")
    present = source.fingerprint(folder)
    if known not in (None, present):
        raise ValueError(
            f"The normal {source.noun} in {folder.root} are not those that the "
            f"run was trained on: {known} then, {present} now. Give normal "
            "ones that were not trained on as the `data` argument, or start a "
            "new run, which learns from all of them"
        )


def _new_samples(source: Source, data: str, progress: Progress) -> Any:
    """Returns the normal samples of a folder, none of them trained on."""
    folder = source.list_samples(data, "auto")
    samples = (*folder.train, *folder.validation)
    trained_on = source.trained_on(samples)
    if source.run is not None:
        # The run has copies of these.
        marked = {path.name for path in marks_of(source.run).false_alarms}
        trained_on += [
            one for one in samples if os.path.basename(one.path) in marked
        ]
    if trained_on:
        raise ValueError(
            f"{len(trained_on)} of the {len(samples)} normal {source.noun} in "
            f"{data} are those of the run, such as {trained_on[0].path}: what "
            "was trained on makes thresholds too low. Give others, or leave "
            "the folder out to calibrate on those that were held out"
        )
    if source.is_of_training(folder):
        warnings.warn(
            f"The {source.noun} in {data} have the names of those that the run "
            "was trained on. If they are the same, moved to another place, the "
            "thresholds are too low: give others",
            stacklevel=2,
        )
    progress.message(folder.summary())
    return source.check_samples(samples, source.data.on_error)


def _new_alarms(
    marked: MarkedImages, run: RunFolder, source: Source
) -> Any | None:
    """Returns the false alarms that the run has not learned from, if any."""
    own = {path.name for path in marks_of(run).false_alarms}
    samples = tuple(
        ImageSample(str(path))
        for path in marked.false_alarms
        if path.name not in own
    )
    return source.scoring_dataset(samples) if samples else None


def _entries(run: RunFolder) -> dict[str, Any]:
    """Returns what `calibrations.json` says, by name; empty without one."""
    path, advice = run.file("calibrations.json"), "Remove it to go on without"
    return files.read_json(path, advice) if os.path.exists(path) else {}


def _history(run: RunFolder, model: AnomalyModel) -> dict[str, Any]:
    """Returns all calibrations so far by name, with that of the model."""
    entries, present = _entries(run), model.calibration
    first = {"time": run.record.get("finished"), **present.summary()}
    entries.setdefault(present.name or FIRST, first)
    return entries


def new_name(run: RunFolder, model: AnomalyModel, name: str) -> str:
    """Returns a name that no calibration has; two may be of one second."""
    known = _history(run, model)
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(n for n in itertools.chain([name], numbered) if n not in known)


def install(
    run: RunFolder,
    model: AnomalyModel,
    calibration: Calibration,
    config: Config,
    time: str | None,
    data: str | None = None,
) -> None:
    """Gives the model of a run a calibration; the present one is kept.

    `data` is the folder that it was measured on, if not that of the run.
    """
    entries = _history(run, model)
    new = {"time": time, "data": data, **calibration.summary()}
    entries.setdefault(calibration.name or FIRST, new)
    files.write_json(run.file("calibrations.json"), entries)
    model.calibration = calibration
    save_model(run, model)
    write_config(run.file("config.toml"), config)
