"""The figures of the SSPCAB paper, to be shown beside one's own."""

from collections import defaultdict
from collections.abc import Iterator

from keras_sspcab.compare.kinds import canonical_name

SOURCE = "[Ristea et al., CVPR 2022](https://arxiv.org/abs/2111.09099)"

#: Name of the row of means in `PUBLISHED`.
MEAN = "mean"

#: Percent without and with the block, with the digits that the paper gives.
Pair = tuple[str, str]

# The means are those that the paper states. That of DRAEM's pixel AP with the
# block is 69.9, though the classes as they stand here give 70.3.
_DRAEM = """
    pixel_auroc     pixel_ap    image_auroc
    carpet     95.5 95.0  53.5 59.4  97.0 98.2
    grid       99.7 99.5  65.7 61.1  99.9 100.0
    leather    98.6 99.5  75.3 76.0  100.0 100.0
    tile       99.2 99.3  92.3 95.0  99.6 100.0
    wood       96.4 96.8  77.7 77.1  99.1 99.5
    bottle     99.1 98.8  86.5 87.9  99.2 98.4
    cable      94.7 96.0  52.4 57.2  91.8 96.9
    capsule    94.3 93.1  49.4 50.2  98.5 99.3
    hazelnut   99.7 99.8  92.9 92.6  100.0 100.0
    metal_nut  99.5 98.9  96.3 98.1  98.7 100.0
    pill       97.6 97.5  48.5 52.4  98.9 99.8
    screw      97.6 99.8  58.2 72.0  93.9 97.9
    toothbrush 98.1 98.1  44.7 51.0  100.0 100.0
    transistor 90.9 87.0  50.7 48.0  93.1 92.9
    zipper     98.8 99.0  81.5 77.1  100.0 100.0
    mean       97.3 97.2  68.4 69.9  98.0 98.9
"""
_CUTPASTE = """
    image_auroc
    carpet     93.1 90.7
    grid       99.9 99.9
    leather    100.0 100.0
    tile       93.4 94.0
    wood       98.6 99.2
    bottle     98.3 98.6
    cable      80.6 82.9
    capsule    96.2 98.1
    hazelnut   97.3 98.3
    metal_nut  99.3 99.6
    pill       92.4 95.3
    screw      86.3 90.8
    toothbrush 98.3 98.8
    transistor 95.5 96.5
    zipper     99.4 99.1
    mean       95.2 96.1
"""
_CUTPASTE_ENSEMBLE = """
    image_auroc
    carpet     93.9 96.8
    grid       100.0 99.9
    leather    100.0 100.0
    tile       94.6 95.0
    wood       99.1 99.1
    bottle     98.2 99.1
    cable      81.2 83.6
    capsule    98.2 97.6
    hazelnut   98.3 98.4
    metal_nut  99.9 99.9
    pill       94.9 96.6
    screw      88.7 90.8
    toothbrush 99.4 99.6
    transistor 96.1 97.3
    zipper     99.9 99.9
    mean       96.1 96.9
"""

# Hosts of videos lack RBDC and TBDC on ShanghaiTech, of which we hold no
# confirmed figures. MNAD has none at all: it does not localize in the paper,
# which does not say whether it predicts or reconstructs there.
_FUTURE_FRAME = """
    micro_auc macro_auc rbdc tbdc
    avenue       85.1 87.3  81.7 84.5  19.59 20.13  56.01 62.30
    shanghaitech 72.8 74.5  80.6 82.9
"""
_MNAD = """
    micro_auc macro_auc
    avenue       82.8 84.8  86.8 88.6
    shanghaitech 68.3 69.8  79.7 80.2
"""
_HF2VAD = """
    micro_auc macro_auc rbdc tbdc
    avenue       89.9 90.9  93.5 92.2  41.05 62.27  86.18 89.28
    shanghaitech 74.2 75.5  83.2 83.7
"""
_BACKGROUND_AGNOSTIC = """
    micro_auc macro_auc rbdc tbdc
    avenue       92.3 92.9  90.4 91.9  65.05 65.99  66.85 64.91
    shanghaitech 82.7 83.6  89.3 89.5
"""


def _parse(host: str, table: str) -> Iterator[tuple[str, str, str, Pair]]:
    header, *lines = table.strip().splitlines()
    for line in lines:
        name, *numbers = line.split()
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        # A line may end before the last metrics.
        for metric, pair in zip(header.split(), pairs, strict=False):
            yield host, metric, name, pair


#: By host (`:ensemble` for its ensemble of five seeds) and metric, the figures
#: of each class or data set.
PUBLISHED: dict[tuple[str, str], dict[str, Pair]] = defaultdict(dict)
for _host, _table in {
    "draem": _DRAEM,
    "cutpaste": _CUTPASTE,
    "cutpaste:ensemble": _CUTPASTE_ENSEMBLE,
    "future_frame": _FUTURE_FRAME,
    "mnad": _MNAD,
    "hf2vad": _HF2VAD,
    "background_agnostic": _BACKGROUND_AGNOSTIC,
}.items():
    for _key, _metric, _name, _pair in _parse(_host, _table):
        PUBLISHED[_key, _metric][_name] = _pair


def published(host: str, metric: str, data_class: str) -> Pair | None:
    """Returns the paper's figures, or None where it has none.

    Args:
        host: Name of the host; `"cutpaste:ensemble"` for the ensemble.
        metric: Name of the metric, as in `metrics.json`.
        data_class: Name of the class or data set, or `"mean"` for that of all
            15 classes of images.

    Example:
        >>> published("draem", "pixel_ap", "mvtec_screw")
        ('58.2', '72.0')
    """
    return PUBLISHED.get((host, metric), {}).get(canonical_name(data_class))
