"""Thresholds that are chosen rather than measured, and what they flag."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from keras_sspcab import files
from keras_sspcab.checks import standardize_number
from keras_sspcab.metrics import f1_optimal_threshold
from keras_sspcab.progress import Progress
from keras_sspcab.runs.calibration import install, new_name
from keras_sspcab.runs.folder import RunFolder
from keras_sspcab.runs.models import load_detector
from keras_sspcab.runs.outputs import (
    FrameScore,
    ImageScore,
    read_frame_scores,
    read_image_scores,
    read_metrics,
)
from keras_sspcab.runs.parsing import load_config
from keras_sspcab.scoring import Calibration
from keras_sspcab.scoring.false_alarms import CONFIDENCE

#: Stands for the threshold of the best F1.
BEST_F1 = "f1"


@dataclasses.dataclass(frozen=True)
class Share:
    """How many of some images are flagged.

    Example:
    >>> low, high = Share(1, 20).interval
    >>> round(low, 3), round(high, 3)
    (0.001, 0.249)
    """

    count: int
    total: int

    @property
    def interval(self) -> tuple[float, float]:
        """Where the share of further images lies, at 95 % (Clopper-Pearson)."""
        from scipy.stats import binomtest

        if not self.total:
            return 0.0, 1.0
        found = binomtest(self.count, self.total).proportion_ci(CONFIDENCE)
        return float(found.low), float(found.high)

    def describe(self, noun: str) -> str:
        """Says it with its interval, in percent."""
        low, high = (f"{100 * share:.3g}" for share in self.interval)
        return f"{self.count} of {self.total} {noun} ({low} to {high} %)"


@dataclasses.dataclass(frozen=True)
class ThresholdChoice:
    """A threshold of scores, and what it flags of the test images.

    Example:
    >>> choice = ThresholdChoice("manual", 3.0, Share(0, 5), Share(4, 4))
    >>> choice.describe()
    '0 of 5 normal ones (0 to 52.2 %) and 4 of 4 defective ones (39.8 to 100 %)'
    """

    name: str
    threshold: float
    normal: Share
    defective: Share

    def describe(self, defective: str = "defective") -> str:
        """Says how many of both are flagged; `defective` is how to call one."""
        parts = {"normal": self.normal, defective: self.defective}
        texts = [
            share.describe(f"{kind} ones")
            for kind, share in parts.items()
            if share.total
        ]
        return " and ".join(texts)


def threshold_choices(
    scored: Sequence[ImageScore | FrameScore], thresholds: Mapping[str, float]
) -> list[ThresholdChoice]:
    """Returns what thresholds flag of labeled images, the lowest first.

    They have as few decimals as flag the same, so that they can be typed; two
    at least. Without labeled images there are none.
    """
    choices = []
    scores = np.array([one.score for one in scored])
    for name, value in sorted(thresholds.items(), key=lambda item: item[1]):
        threshold = _shortest(value, scores)
        shares = [
            Share(
                sum(one.score >= threshold for one in scored if one.label == k),
                sum(one.label == k for one in scored),
            )
            for k in (0, 1)
        ]
        if any(share.total for share in shares):
            choices.append(ThresholdChoice(name, threshold, *shares))
    return choices


def _shortest(threshold: float, scores: np.ndarray) -> float:
    flagged = scores >= threshold
    for digits in range(2, 9):
        short = round(threshold, digits)
        if np.array_equal(scores >= short, flagged):
            return short
    return threshold


def set_threshold(
    run: RunFolder, threshold: float | str, progress: Progress
) -> Calibration:
    """Sets a threshold of scores by hand, or by labels; see `Run.calibrate`."""
    model = load_detector(run.path)
    before = model.calibration
    if not before.is_calibrated:
        raise ValueError(
            f"The model of {run.path} has no scale of scores yet. Calibrate it "
            "with normal images first"
        )
    scored = _labeled_scores(run, before)
    noun, defective, doubt = "images", "defective", ""
    if model.kind != "image":
        noun, defective = "frames", "abnormal"
        doubt = "; less sure, as frames of one video are alike"
    label = "manual"
    if threshold == BEST_F1:
        label = BEST_F1
        known = {one.label for one in scored}
        words = {0: "normal", 1: defective}
        if missing := [word for k, word in words.items() if k not in known]:
            advice = "Run `keras-sspcab evaluate` first"
            if scored:
                advice = f"There are none that are {' or '.join(missing)}"
            raise ValueError(
                "The threshold of the best F1 needs the scores of labeled "
                f"{noun}, normal and {defective} ones, in "
                f"{run.path}/predictions, of this calibration. {advice}"
            )
        threshold, f1 = f1_optimal_threshold(
            [one.label for one in scored], [one.score for one in scored]
        )
        progress.message(
            f"The best F1 of the test {noun} is {f1:.3f}. It was chosen on "
            "them, so that others will do worse."
        )
    value = standardize_number(threshold, "threshold", -math.inf)
    time = files.now()
    calibration = dataclasses.replace(
        before,
        threshold=value,
        # What share of normal images it flags is not known.
        quantile=None,
        decision="score",
        name=new_name(run, model, f"{label}@{time}"),
    )
    # As it is: what measures thresholds again goes by the rule of the run.
    config = load_config(run.file("config.toml"))
    install(run, model, calibration, config, time)
    alone = ", besides what regions flag" if before.regions else ""
    for one in threshold_choices(scored, {"it": value}):
        flagged = f"{one.describe(defective)}{alone}{doubt}"
        progress.message(f"Of the test {noun} it flags {flagged}.")
    return calibration


def _labeled_scores(
    run: RunFolder, calibration: Calibration
) -> Sequence[ImageScore | FrameScore]:
    """Returns test images or frames that were scored at the present scale."""
    rows: Sequence[ImageScore | FrameScore]
    try:
        values = read_metrics(run)
        if values.get("kind") == "video":
            of_videos = read_frame_scores(run).values()
            rows = list(itertools.chain.from_iterable(of_videos))
        else:
            rows = read_image_scores(run)
    except (OSError, ValueError):
        return []
    then = Calibration.from_dict(values.get("calibration") or {})
    scale = (calibration.score_mean, calibration.score_std)
    return rows if (then.score_mean, then.score_std) == scale else []
