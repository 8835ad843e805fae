"""What is measured on a kind of data, and how its classes are grouped."""

import dataclasses
import types
from collections.abc import Mapping, Sequence

OTHER = "other"


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric that tables and figures can show, a share in [0, 1].

    Attributes:
        key: Its name in `metrics.json`.
        title: Its name in tables.
        published_digits: Digits after the point in the paper's tables.
    """

    key: str
    title: str
    published_digits: int = 1


@dataclasses.dataclass(frozen=True)
class Convention:
    """What evaluations must share for their figures to be comparable.

    Attributes:
        title: Its name among the conditions.
        words: What its values in `metrics.json` mean; others stand as they
            are.
    """

    title: str
    words: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def describe(self, value: object) -> str:
        """Returns a value in words."""
        return self.words.get(str(value), str(value))


@dataclasses.dataclass(frozen=True)
class Words:
    """What the things are called that are compared on.

    Attributes:
        data_class: One of the data classes.
        data_classes: Several of them.
        short: The same where it is clear that data are meant.
        shorts: Several, likewise.
        samples: What a data class holds.
        folders: The folders in it, for messages.
        counts: A sentence with the fields of `DataClass`.
        lacking: What follows "No METRIC for CLASS".
    """

    data_class: str
    data_classes: str
    short: str
    shorts: str
    samples: str
    folders: str
    counts: str
    lacking: str


@dataclasses.dataclass(frozen=True)
class Kind:
    """What there is to know about a kind of data.

    Attributes:
        name: The `kind` of the hosts.
        metrics: All metrics by key, in the order of the tables.
        shown: Those that are shown unless others are asked for.
        words: What its things are called.
        rows: What stands in the rows of the tables, as in the paper's:
            `"classes"` (blocks side by side) or `"hosts"` (blocks one below
            the other).
        published_in: The table of the paper.
        published_mean: Name of the paper's row of means; empty without one.
        groups: Classes that have a mean of their own, by name of the group;
            all others are in the group `"other"`.
        conventions: By their keys in `metrics.json`.
        has_ensembles: Whether ensembles over seeds can be measured.
    """

    name: str
    metrics: Mapping[str, Metric]
    shown: tuple[str, ...]
    words: Words
    rows: str
    published_in: str
    published_mean: str = ""
    groups: Mapping[str, frozenset[str]] = dataclasses.field(
        default_factory=dict
    )
    conventions: Mapping[str, Convention] = dataclasses.field(
        default_factory=dict
    )
    has_ensembles: bool = False

    def group_of(self, data_class: str) -> str:
        """Returns the group of a class, `"other"` for unknown ones."""
        name = canonical_name(data_class)
        for group, names in self.groups.items():
            if name in names:
                return group
        return OTHER

    def grouped(self, classes: Sequence[str]) -> dict[str, list[str]]:
        """Returns the classes by group, groups in a fixed order."""
        found: dict[str, list[str]] = {}
        for group in (*self.groups, OTHER):
            members = [c for c in classes if self.group_of(c) == group]
            if members:
                found[group] = members
        return found

    def choose_metrics(self, keys: Sequence[str] = ()) -> tuple[Metric, ...]:
        """Returns the metrics to show.

        Args:
            keys: Their names in `metrics.json`; empty for the usual ones.

        Raises:
            ValueError: If there is no such metric.
        """
        if unknown := [key for key in keys if key not in self.metrics]:
            raise ValueError(
                f"There is no metric named {unknown[0]!r}. Choose from: "
                f"{', '.join(self.metrics)}"
            )
        chosen = dict.fromkeys(keys or self.shown)
        return tuple(self.metrics[key] for key in chosen)


# Other names that data sets of videos go by.
_ALIASES = {
    "avenue_dataset": "avenue",
    "cuhk_avenue": "avenue",
    "shanghai_tech": "shanghaitech",
    "shanghaitech_campus": "shanghaitech",
    "ucsdped1": "ped1",
    "ucsd_ped1": "ped1",
    "ucsdped2": "ped2",
    "ucsd_ped2": "ped2",
}


def canonical_name(data_class: str) -> str:
    """Returns a class's name as the paper's tables have it.

    Classes of MVTec AD are written as there, `metal_nut`; data sets of videos
    are `avenue`, `shanghaitech`, `ped1`, `ped2` and `ubnormal`.
    """
    name = data_class.lower().replace(" ", "_").replace("-", "_")
    name = name.removeprefix("mvtec_")
    return _ALIASES.get(name, name)


def _metrics(digits: int = 1, **titles: str) -> dict[str, Metric]:
    return {key: Metric(key, title, digits) for key, title in titles.items()}


# MVTec AD's, and those of `write_texture_folder`.
_TEXTURES = frozenset(
    (
        *("carpet", "grid", "leather", "tile", "wood"),
        *("brick", "grass", "gravel"),
    )
)
_OBJECTS = frozenset(
    (
        *("bottle", "cable", "capsule", "hazelnut", "metal_nut"),
        *("pill", "screw", "toothbrush", "transistor", "zipper"),
    )
)

_IMAGE = Kind(
    name="image",
    metrics=_metrics(
        pixel_auroc="localization AUROC",
        pixel_ap="localization AP",
        image_auroc="detection AUROC",
        aupro="AUPRO",
        image_ap="detection AP",
        image_f1="best F1",
        detection_rate="defects detected",
        false_alarm_rate="false alarms",
    ),
    shown=("pixel_auroc", "pixel_ap", "image_auroc", "aupro"),
    words=Words(
        data_class="data class",
        data_classes="data classes",
        short="class",
        shorts="classes",
        samples="images",
        folders="train/good, test/good and test/DEFECT",
        counts="Images of {name}: {num_train} normal ones to train and "
        "calibrate on, {num_normal} normal and {num_abnormal} defective ones "
        "to test",
        lacking="(are there no masks?): it is not in the means",
    ),
    rows="classes",
    published_in="Table 2",
    published_mean="mean of all 15 classes",
    groups={"texture": _TEXTURES, "object": _OBJECTS},
    has_ensembles=True,
)

_VIDEO = Kind(
    name="video",
    metrics={
        **_metrics(micro_auc="micro AUC", macro_auc="macro AUC"),
        **_metrics(2, rbdc="RBDC", tbdc="TBDC"),
        **_metrics(
            streaming_micro_auc="streaming micro AUC",
            detection_rate="abnormal frames found",
            false_alarm_rate="false alarms",
        ),
    },
    shown=("micro_auc", "macro_auc", "rbdc", "tbdc"),
    words=Words(
        data_class="data set",
        data_classes="data sets",
        short="data set",
        shorts="data sets",
        samples="videos",
        folders="train and test, training and testing, training_videos and "
        "testing_videos, or Train and Test",
        counts="Videos of {name}: {num_train} normal ones to train and "
        "calibrate on; {num_normal:,} normal and {num_abnormal:,} abnormal "
        "frames to test",
        lacking="(are there neither masks nor tracks?)",
    ),
    rows="hosts",
    published_in="Table 3",
    conventions={
        "normalization": Convention(
            "Normalization of scores for micro and macro AUC",
            {
                "per_video": "each video by its own extremes, with a look at "
                "the whole video",
                "none": "none, calibrated scores",
            },
        ),
        "smoothing": Convention("Smoothing of these scores"),
        "single_class": Convention(
            "Videos of one class in macro AUC",
            {
                "sentinel": "a normal frame of score 0 and an abnormal one of "
                "score 1 are added to every video",
                "skip": "left out",
            },
        ),
        "frames_dropped": Convention("First frames of a video without score"),
        "regions": Convention("Regions for RBDC and TBDC"),
        "tracks": Convention(
            "Tracks of the ground truth",
            {
                "files": "files of tracks",
                "masks": "derived from the masks",
                "none": "there are none",
            },
        ),
    },
)

#: By the `kind` of the hosts. Objects are those of videos.
KINDS: Mapping[str, Kind] = types.MappingProxyType(
    {"image": _IMAGE, "video": _VIDEO, "objects": _VIDEO}
)
