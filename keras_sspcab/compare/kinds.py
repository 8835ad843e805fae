"""What is compared on images and on videos, and how data are called."""

import dataclasses
import types
from collections.abc import Mapping, Sequence

from keras_sspcab.checks import did_you_mean
from keras_sspcab.metrics.registry import Metric, metrics_of

OTHER = "other"


@dataclasses.dataclass(frozen=True)
class Nouns:
    """What the data are called.

    `counts` is a sentence with the fields of `DataClass`; `lacking` follows "No
    METRIC for CLASS".
    """

    data_class: str
    data_classes: str
    samples: str
    folders: str
    counts: str
    lacking: str


@dataclasses.dataclass(frozen=True)
class Kind:
    """How hosts of a kind are compared.

    `rows` says what stands in the rows of the tables, as in the paper's:
    `"classes"` (blocks side by side) or `"hosts"` (blocks one below the other).
    """

    name: str
    shown: tuple[str, ...]  # metrics, unless others are asked for
    nouns: Nouns
    rows: str
    groups: Mapping[str, frozenset[str]] = dataclasses.field(
        default_factory=dict
    )
    has_ensembles: bool = False

    def group_classes(self, classes: Sequence[str]) -> dict[str, list[str]]:
        """Returns the classes by group, groups in a fixed order."""
        groups: dict[str, list[str]] = {n: [] for n in (*self.groups, OTHER)}
        for data_class in classes:
            known_as = canonical_name(data_class)
            names = (n for n, group in self.groups.items() if known_as in group)
            groups[next(names, OTHER)].append(data_class)
        return {name: members for name, members in groups.items() if members}

    def choose_metrics(self, keys: Sequence[str] = ()) -> tuple[Metric, ...]:
        """Returns metrics by their keys; the usual ones without any."""
        metrics = {metric.key: metric for metric in metrics_of(self.name)}
        if unknown := [key for key in keys if key not in metrics]:
            raise ValueError(
                f"There is no metric named {unknown[0]!r}."
                f"{did_you_mean(unknown[0], metrics)} Choose from: "
                f"{', '.join(metrics)}"
            )
        return tuple(metrics[key] for key in dict.fromkeys(keys or self.shown))


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
    shown=("pixel_auroc", "pixel_ap", "image_auroc", "aupro"),
    nouns=Nouns(
        data_class="class",
        data_classes="classes",
        samples="images",
        folders="train/good, test/good and test/DEFECT",
        counts="Images of {name}: {num_train} normal ones to train and "
        "calibrate on, {num_normal} normal and {num_abnormal} defective ones "
        "to test",
        lacking="(are there no masks?): it is not in the means",
    ),
    rows="classes",
    groups={"texture": _TEXTURES, "object": _OBJECTS},
    has_ensembles=True,
)

_VIDEO = Kind(
    name="video",
    shown=("micro_auc", "macro_auc", "rbdc", "tbdc"),
    nouns=Nouns(
        data_class="data set",
        data_classes="data sets",
        samples="videos",
        folders="train and test, training and testing, training_videos and "
        "testing_videos, or Train and Test",
        counts="Videos of {name}: {num_train} normal ones to train and "
        "calibrate on; {num_normal:,} normal and {num_abnormal:,} abnormal "
        "frames to test",
        lacking="(are there neither masks nor tracks?)",
    ),
    rows="hosts",
)

#: By the `kind` of the hosts. Objects are those of videos.
KINDS: Mapping[str, Kind] = types.MappingProxyType(
    {"image": _IMAGE, "video": _VIDEO, "objects": _VIDEO}
)
