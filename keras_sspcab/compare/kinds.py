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
    """

    key: str
    title: str


@dataclasses.dataclass(frozen=True)
class Kind:
    """What there is to know about a kind of data.

    Attributes:
        metrics: All metrics by key, in the order of the tables.
        shown: Those that are shown unless others are asked for.
        groups: Classes that have a mean of their own, by name of the group;
            all others are in the group `"other"`.
    """

    metrics: Mapping[str, Metric]
    shown: tuple[str, ...]
    groups: Mapping[str, frozenset[str]]

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


def canonical_name(data_class: str) -> str:
    """Returns a class's name as MVTec AD writes it, `metal_nut`."""
    name = data_class.lower().replace(" ", "_").replace("-", "_")
    return name.removeprefix("mvtec_")


def _metrics(**titles: str) -> dict[str, Metric]:
    return {key: Metric(key, title) for key, title in titles.items()}


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

#: By the `kind` of the hosts.
KINDS: Mapping[str, Kind] = types.MappingProxyType(
    {
        "image": Kind(
            metrics=_metrics(
                pixel_auroc="localisation AUROC",
                pixel_ap="localisation AP",
                image_auroc="detection AUROC",
                aupro="AUPRO",
                image_ap="detection AP",
                image_f1="best F1",
                detection_rate="defects detected",
                false_alarm_rate="false alarms",
            ),
            shown=("pixel_auroc", "pixel_ap", "image_auroc", "aupro"),
            groups={"texture": _TEXTURES, "object": _OBJECTS},
        ),
    }
)
