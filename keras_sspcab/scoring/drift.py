"""Tells when images no longer look like those that a detector was made for.

Of each image a few plain statistics are taken, and its score. Each is compared
with those of the normal images by its rank among them, which needs no
assumption about their distribution and gives a single odd image, or a defect,
little weight. The mean rank of further images like these is one half. How far
chance moves it follows from how many images there are, new ones and normal
ones: few normal images say little about what is normal.
"""

import bisect
import dataclasses
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

#: Normal images without which there is no telling.
MIN_IMAGES = 5

# Weight of the newest image in the moving averages, and the number of images
# whose plain mean varies as much.
_WEIGHT = 0.05
_MEMORY = (2 - _WEIGHT) / _WEIGHT

# Standard deviations of a mean rank that chance does not reach, and the largest
# distance from one half that is asked for: of few normal images a mean rank
# spreads over nearly all of its range. Simulated: see `DriftMonitor`.
_LIMIT = 4.5
_MAX_LIMIT = 0.48

# Of fewer images, ranks are too coarse to tell anything.
_MIN_COMPARED = 10

# Values that differ by less count as equal: nobody minds a gray level.
_RESOLUTION = 0.005

# Values that are kept of each statistic.
_MAX_VALUES = 33

# Lower scores are not told: calibration scores images by what others tell, and
# the whole of them fits further normal images a little better.
_ONLY_HIGH = ("score",)

_LIGHT = "the light, the exposure and the background"
_COLOR = "the white balance and the color of the light"
# By statistic: what is said if it is low or high, and what to look at.
_WORDS = {
    "brightness": ("are darker", "are brighter", _LIGHT),
    "contrast": ("have less contrast", "have more contrast", _LIGHT),
    "sharpness": (
        "are less sharp",
        "are sharper",
        "focus, vibration, dirt on the lens and compression",
    ),
    "black": ("have fewer black pixels", "have more black pixels", _LIGHT),
    "white": ("have fewer white pixels", "have more white pixels", _LIGHT),
    "red": ("are less red", "are redder", _COLOR),
    "blue": ("are less blue", "are bluer", _COLOR),
    "score": (
        "score lower",
        "score higher",
        "what is new about the parts, or about how they are seen",
    ),
}


@dataclasses.dataclass(frozen=True)
class NormalRange:
    """What a statistic is in normal images.

    `values` are in ascending order: all of them, or quantiles that stand for
    equal shares.

    Example:
    >>> NormalRange("brightness", 0.5, 0.1, (0.4, 0.5, 0.6)).rank(0.55)
    0.6666666666666666
    """

    name: str
    mean: float
    std: float
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))

    def rank(self, value: float) -> float:
        """Returns the share of normal images below a value; of equal ones half.

        Its mean is one half for images like these.
        """
        below = bisect.bisect_left(self.values, value - _RESOLUTION)
        above = bisect.bisect_right(self.values, value + _RESOLUTION)
        return (below + above) / 2 / len(self.values)

    def shift(self, value: float) -> float:
        """Returns how far a value is from the mean, in standard deviations."""
        return (value - self.mean) / max(self.std, _RESOLUTION)


@dataclasses.dataclass(frozen=True)
class DriftReference:
    """Statistics of the normal images that a detector was calibrated with.

    Attributes:
        num_images: How many normal images there were.
        ranges: What each statistic was in them.

    Example:
    >>> reference = DriftReference.measure({"brightness": np.linspace(0, 1, 9)})
    >>> reference.num_images, reference.ranges[0].mean
    (9, 0.5)
    """

    num_images: int
    ranges: tuple[NormalRange, ...]

    def __post_init__(self) -> None:
        ranges = tuple(
            NormalRange(**each) if isinstance(each, Mapping) else each
            for each in self.ranges
        )
        object.__setattr__(self, "ranges", ranges)

    @classmethod
    def measure(cls, statistics: Mapping[str, Any]) -> "DriftReference | None":
        """Measures arrays `(images,)`; None of fewer than five images."""
        count = min((len(v) for v in statistics.values()), default=0)
        if count < MIN_IMAGES:
            return None
        return cls(
            count,
            tuple(
                _measure_range(name, np.sort(np.asarray(values, "float64")))
                for name, values in statistics.items()
            ),
        )

    def limit(self, num_images: float) -> float:
        """Returns how far from one half chance moves a mean rank, at most."""
        # A rank is uniform; its mean misses by both kinds of images.
        variance = (1 / num_images + 1 / self.num_images) / 12
        return min(_LIMIT * math.sqrt(variance), _MAX_LIMIT)


def _measure_range(name: str, values: np.ndarray) -> NormalRange:
    kept = values
    if len(values) > _MAX_VALUES:
        shares = (np.arange(_MAX_VALUES) + 0.5) / _MAX_VALUES
        kept = np.quantile(values, shares)
    numbers = (float(f"{v:.6g}") for v in (values.mean(), values.std(), *kept))
    return NormalRange(name, next(numbers), next(numbers), tuple(numbers))


@dataclasses.dataclass(frozen=True)
class Drift:
    """A statistic of images that is no longer what it was in normal ones.

    Attributes:
        statistic: Its name, as of `input_statistics`, or `"score"`.
        value: Its present mean.
        mean: Its mean in the normal images.
        std: Its standard deviation in these.
        shift: How far it has moved, in these standard deviations.
        since: Number of the image where the change began, from 1 on, as far as
            it can be told; None where images have no order.
        since_time: When the image before it came, in seconds since 1970.

    Example:
    >>> Drift("brightness", 0.3, 0.5, 0.05, -4.0, since=120).describe()
    'Images are darker than normal: brightness 0.3, normally 0.5 ± 0.05 \
(-4.0 standard deviations), since image 120'
    """

    statistic: str
    value: float
    mean: float
    std: float
    shift: float
    since: int | None = None
    since_time: float | None = None

    def describe(self) -> str:
        """Says what has changed, and since when if that is known."""
        low, high, _ = self._words
        since = "" if self.since is None else f", since image {self.since}"
        return (
            f"Images {low if self.shift < 0 else high} than normal: "
            f"{self.statistic} {self.value:.3g}, normally {self.mean:.3g} ± "
            f"{self.std:.2g} ({self.shift:+.1f} standard deviations){since}"
        )

    def advise(self) -> str:
        """Says what to do about it."""
        return (
            f"Look at {self._words[2]}. If images are to look like this from "
            "now on, calibrate the model with such images, or train it on them"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields and both sentences, for JSON."""
        return {
            **dataclasses.asdict(self),
            "text": self.describe(),
            "advice": self.advise(),
        }

    @property
    def _words(self) -> Sequence[str]:
        default = ("are lower", "are higher", "what has changed")
        return _WORDS.get(self.statistic, default)


@dataclasses.dataclass(frozen=True)
class DriftComparison:
    """Images beside the normal ones, in no order.

    Attributes:
        num_images: How many were compared.
        ranks: Mean rank among the normal images, by statistic.
        values: Mean value, by statistic.

    Example:
    >>> reference = DriftReference.measure({"brightness": np.linspace(0, 1, 9)})
    >>> dark = DriftComparison.of(reference, {"brightness": np.full(20, -1.0)})
    >>> [drift.statistic for drift in dark.drifts(reference)]
    ['brightness']
    """

    num_images: int
    ranks: Mapping[str, float]
    values: Mapping[str, float]

    @classmethod
    def of(
        cls, reference: DriftReference, statistics: Mapping[str, Any]
    ) -> "DriftComparison":
        """Compares arrays `(images,)`; statistics without a range are left."""
        known = [
            (each, np.asarray(statistics[each.name], "float64").tolist())
            for each in reference.ranges
            if each.name in statistics
        ]
        count = min((len(values) for _, values in known), default=0)
        if not count:
            return cls(0, {}, {})
        return cls(
            count,
            {e.name: sum(map(e.rank, values)) / count for e, values in known},
            {e.name: sum(values) / count for e, values in known},
        )

    @classmethod
    def joined(cls, parts: Iterable["DriftComparison"]) -> "DriftComparison":
        """Returns the comparison of the images of all parts."""
        parts = [part for part in parts if part.num_images]
        total = sum(part.num_images for part in parts)

        def mean(name: str, key: str) -> float:
            weighted = (p.num_images * getattr(p, name)[key] for p in parts)
            return sum(weighted) / total

        known = parts[0].ranks if parts else ()
        names = [n for n in known if all(n in part.ranks for part in parts)]
        return cls(
            total,
            {n: mean("ranks", n) for n in names},
            {n: mean("values", n) for n in names},
        )

    def drifts(self, reference: DriftReference) -> tuple[Drift, ...]:
        """Returns what differs from the normal images, the most first.

        As in `DriftMonitor`, what is hardly worth a word is not told, however
        many images there are; and of fewer than ten images, nothing.
        """
        if self.num_images < _MIN_COMPARED:
            return ()
        limit = reference.limit(min(self.num_images, _MEMORY))
        return _sorted(
            _drift(each, self.values[each.name])
            for each in reference.ranges
            if each.name in self.ranks
            and _distance(each, self.ranks[each.name]) > limit
        )


def _distance(each: NormalRange, rank: float) -> float:
    """Returns how far a mean rank is from one half, where that matters."""
    return max(rank - 0.5, 0.0 if each.name in _ONLY_HIGH else 0.5 - rank)


def _drift(each: NormalRange, value: float, *since: Any) -> Drift:
    shift = each.shift(value)
    return Drift(each.name, value, each.mean, each.std, shift, *since)


def _sorted(drifts: Iterable[Drift]) -> tuple[Drift, ...]:
    return tuple(sorted(drifts, key=lambda d: abs(d.shift), reverse=True))


@dataclasses.dataclass
class _Track:
    """The moving averages of one statistic."""

    range: NormalRange
    rank: float = 0.5
    value: float = 0.0
    is_drifting: bool = False
    since: tuple[int, float | None] = (1, None)


class DriftMonitor:
    """Watches images as they come, and tells when they are no longer normal.

    Of each statistic it keeps the exponentially weighted mean of ranks among
    the normal images (an EWMA chart, weight 0.05, which is about the last 40
    images), and tells of it while it is further from one half than chance moves
    it. Simulated with eight independent statistics of independent images, there
    is a false alarm in about 100,000 images; few normal images widen the
    limits, so that there are fewer. Half of all shifts show within, in images:

    ============= ====== ====== ======
    normal images  1 std  2 std  3 std
    ============= ====== ====== ======
    300               32     15     12
    100               39     17     14
    50                58     21     17
    20             (884)     35     26
    10                 -  (194)     55
    ============= ====== ====== ======

    In brackets: nearly as many are never found. Images of a line are not quite
    independent: neighbors are alike, and false alarms more frequent.

    It takes microseconds an image, and may be used by several threads.

    Args:
        reference: That of the calibration of a model.

    Example:
    >>> rng = np.random.default_rng(0)
    >>> normal = {"brightness": rng.normal(0.5, 0.05, 100)}
    >>> monitor = DriftMonitor(DriftReference.measure(normal))
    >>> monitor.update({"brightness": rng.normal(0.5, 0.05, 200)})
    ()
    >>> drift, = monitor.update({"brightness": rng.normal(0.4, 0.05, 50)})
    >>> drift.statistic, 150 < drift.since < 250
    ('brightness', True)
    """

    def __init__(self, reference: DriftReference) -> None:
        self.reference = reference
        self.num_images = 0
        self._limit = reference.limit(_MEMORY)
        self._tracks = [
            _Track(each, value=each.mean) for each in reference.ranges
        ]
        self._lock = threading.Lock()

    @property
    def drifts(self) -> tuple[Drift, ...]:
        """What is not normal at present, the most first."""
        return _sorted(
            _drift(track.range, track.value, *track.since)
            for track in self._tracks
            if track.is_drifting
        )

    @property
    def shifts(self) -> dict[str, float]:
        """How far each statistic is from normal, in standard deviations."""
        return {
            track.range.name: track.range.shift(track.value)
            for track in self._tracks
        }

    def update(
        self, statistics: Mapping[str, Any], time: float | None = None
    ) -> tuple[Drift, ...]:
        """Takes further images, in their order; returns what is not normal.

        Args:
            statistics: Numbers or arrays `(images,)` by name, as of
                `input_statistics`, and `"score"` in standard deviations. Those
                that are missing stay as they were.
            time: When the images came, in seconds since 1970.
        """
        columns = {
            name: np.asarray(values, "float64").ravel().tolist()
            for name, values in statistics.items()
        }
        with self._lock:
            first = self.num_images + 1
            self.num_images += max(map(len, columns.values()), default=0)
            for track in self._tracks:
                values = columns.get(track.range.name, ())
                for number, value in enumerate(values, first):
                    if math.isfinite(value):
                        self._follow(track, value, number, time)
        return self.drifts

    def _follow(
        self, track: _Track, value: float, number: int, time: float | None
    ) -> None:
        rank = track.range.rank(value)
        track.rank += _WEIGHT * (rank - track.rank)
        track.value += _WEIGHT * (value - track.value)
        distance = _distance(track.range, track.rank)
        if track.is_drifting:
            # Not at every image that lies on the border.
            track.is_drifting = distance > self._limit / 2
        elif distance * _LIMIT <= self._limit:
            # The change began after the mean was last as it should be.
            track.since = number + 1, time
        track.is_drifting |= distance > self._limit
