"""The results of the SSPCAB paper, to be shown beside one's own."""

import dataclasses
import types
from collections import defaultdict
from collections.abc import Callable, Mapping

from keras_sspcab.compare.grid import OFF, ON
from keras_sspcab.compare.kinds import canonical_name

SOURCE = "[Ristea et al., CVPR 2022](https://arxiv.org/abs/2111.09099)"

#: Name of the row of means in a table.
MEAN = "mean"

#: Percent by block, with the digits that the paper gives.
Texts = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class PublishedTable:
    """A table of the paper.

    Attributes:
        where: Where it stands, such as `"Table 1"`.
        values: By host (`:ensemble` for its ensemble of five seeds) and metric,
            the numbers of each class or data set, by block.
        mean: What the row of means is called; empty if there is none.
    """

    where: str
    values: Mapping[tuple[str, str], Mapping[str, Texts]]
    mean: str = ""

    def texts(self, host: str, metric: str, data_class: str) -> Texts:
        """Returns the numbers of a class or data set, or of `MEAN`."""
        by_class = self.values.get((host, metric), {})
        return by_class.get(canonical_name(data_class), {})

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes or data sets, without the row of means."""
        names = (name for by_class in self.values.values() for name in by_class)
        return tuple(name for name in dict.fromkeys(names) if name != MEAN)

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks that there are numbers of, in the order of the table."""
        return tuple(
            dict.fromkeys(
                block
                for by_class in self.values.values()
                for texts in by_class.values()
                for block in texts
            )
        )


# Table 2: the results of DRAEM, CutPaste and CutPaste's ensemble of five seeds.
# The means are those that the paper states. That of DRAEM's pixel AP with the
# block is 69.9, though the classes as they stand here give 70.3.
_IMAGE_COLUMNS = (
    ("draem", "pixel_auroc"),
    ("draem", "pixel_ap"),
    ("draem", "image_auroc"),
    ("cutpaste", "image_auroc"),
    ("cutpaste:ensemble", "image_auroc"),
)
_IMAGES = """
    carpet     95.5 95.0  53.5 59.4  97.0 98.2   93.1 90.7    93.9 96.8
    grid       99.7 99.5  65.7 61.1  99.9 100.0  99.9 99.9    100.0 99.9
    leather    98.6 99.5  75.3 76.0  100.0 100.0 100.0 100.0  100.0 100.0
    tile       99.2 99.3  92.3 95.0  99.6 100.0  93.4 94.0    94.6 95.0
    wood       96.4 96.8  77.7 77.1  99.1 99.5   98.6 99.2    99.1 99.1
    bottle     99.1 98.8  86.5 87.9  99.2 98.4   98.3 98.6    98.2 99.1
    cable      94.7 96.0  52.4 57.2  91.8 96.9   80.6 82.9    81.2 83.6
    capsule    94.3 93.1  49.4 50.2  98.5 99.3   96.2 98.1    98.2 97.6
    hazelnut   99.7 99.8  92.9 92.6  100.0 100.0 97.3 98.3    98.3 98.4
    metal_nut  99.5 98.9  96.3 98.1  98.7 100.0  99.3 99.6    99.9 99.9
    pill       97.6 97.5  48.5 52.4  98.9 99.8   92.4 95.3    94.9 96.6
    screw      97.6 99.8  58.2 72.0  93.9 97.9   86.3 90.8    88.7 90.8
    toothbrush 98.1 98.1  44.7 51.0  100.0 100.0 98.3 98.8    99.4 99.6
    transistor 90.9 87.0  50.7 48.0  93.1 92.9   95.5 96.5    96.1 97.3
    zipper     98.8 99.0  81.5 77.1  100.0 100.0 99.4 99.1    99.9 99.9
    mean       97.3 97.2  68.4 69.9  98.0 98.9   95.2 96.1    96.1 96.9
"""

# Table 3. RBDC and TBDC on ShanghaiTech are left out, as we hold no confirmed
# numbers. MNAD has none at all: it does not localize in the paper, which does
# not say whether it predicts or reconstructs there.
_VIDEO_COLUMNS = ("avenue", "shanghaitech")
_VIDEOS = """
    future_frame        micro_auc  85.1 87.3  72.8 74.5
    future_frame        macro_auc  81.7 84.5  80.6 82.9
    future_frame        rbdc       19.59 20.13
    future_frame        tbdc       56.01 62.30
    mnad                micro_auc  82.8 84.8  68.3 69.8
    mnad                macro_auc  86.8 88.6  79.7 80.2
    hf2vad              micro_auc  89.9 90.9  74.2 75.5
    hf2vad              macro_auc  93.5 92.2  83.2 83.7
    hf2vad              rbdc       41.05 62.27
    hf2vad              tbdc       86.18 89.28
    background_agnostic micro_auc  92.3 92.9  82.7 83.6
    background_agnostic macro_auc  90.4 91.9  89.3 89.5
    background_agnostic rbdc       65.05 65.99
    background_agnostic tbdc       66.85 64.91
"""


def _read_results(
    table: str, keys_of: Callable[[list[str]], list[tuple[str, str, str]]]
) -> dict[tuple[str, str], dict[str, Texts]]:
    """Reads pairs of numbers, without and with the block.

    `keys_of` returns host, metric and class of each pair, from the words in
    front of the numbers.
    """
    values: dict[tuple[str, str], dict[str, Texts]] = defaultdict(dict)
    for line in table.strip().splitlines():
        words = line.split()
        numbers = [word for word in words if word[0].isdigit()]
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        names = words[: len(words) - len(numbers)]
        for (host, metric, name), pair in zip(
            keys_of(names), pairs, strict=False
        ):
            values[host, metric][name] = dict(zip((OFF, ON), pair, strict=True))
    return dict(values)


def _of_images(names: list[str]) -> list[tuple[str, str, str]]:
    (name,) = names
    return [(host, metric, name) for host, metric in _IMAGE_COLUMNS]


def _of_videos(names: list[str]) -> list[tuple[str, str, str]]:
    host, metric = names
    return [(host, metric, data) for data in _VIDEO_COLUMNS]


#: The tables of the paper, by the kind of data.
TABLES: Mapping[str, PublishedTable] = types.MappingProxyType(
    {
        "image": PublishedTable(
            "Table 2, which calls pixel metrics localization and image metrics "
            "detection",
            _read_results(_IMAGES, _of_images),
            "mean of all 15 classes",
        ),
        "video": PublishedTable("Table 3", _read_results(_VIDEOS, _of_videos)),
    }
)
