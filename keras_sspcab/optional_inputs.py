"""Inputs that a request may leave out, in all formats and protocols.

Models name their own, as `Detector.optional_inputs`; every calibrated detector
has those that decide.
"""

import dataclasses
import math
from collections.abc import Sequence

from keras_sspcab.checks import standardize_number


@dataclasses.dataclass(frozen=True)
class OptionalInput:
    """An input with a value for each row, `(batch,)`.

    A row that leaves it out has NaN there, or of integers -1.

    Attributes:
        name: Its name, the same everywhere.
        dtype: That of NumPy, float or signed.

    Example:
    >>> OptionalInput("threshold").default
    nan
    """

    name: str
    dtype: str = "float32"

    @property
    def default(self) -> float:
        """The value of a row that leaves it out."""
        return left_out(self.dtype)


#: What decides whether an image is anomalous, in place of the calibration.
DECISION_INPUTS = (OptionalInput("threshold"), OptionalInput("sensitivity"))

#: Signatures with optional inputs are called after those without.
OPTIONS_SUFFIX = "_options"


def decision_options(
    threshold: float | None, sensitivity: float | None
) -> dict[str, float]:
    """Returns which of the two is given, by name: one or none.

    Raises:
        ValueError: If both are given, or a value is out of its range.

    Example:
    >>> decision_options(None, sensitivity=0.75)
    {'sensitivity': 0.75}
    """
    if threshold is not None and sensitivity is not None:
        raise ValueError(
            "Give a threshold or a sensitivity, not both. Received: "
            f"threshold={threshold!r}, sensitivity={sensitivity!r}"
        )
    if threshold is not None:
        value = standardize_number(threshold, "threshold", -math.inf)
        return {"threshold": value}
    if sensitivity is not None:
        value = standardize_number(sensitivity, "sensitivity", 0.0, 1.0)
        return {"sensitivity": value}
    return {}


def left_out(dtype: str) -> float:
    """Returns what stands for an optional input that is left out."""
    return math.nan if "float" in dtype else -1


#: What an image is called that resembles none of the products of a model.
UNKNOWN = "unknown"


def product_index(products: Sequence[str], product: str | int) -> int:
    """Returns the index of a product that is given by name or index.

    Raises:
        ValueError: If there is no such product; it names those there are.

    Example:
    >>> product_index(("nut", "bolt"), "bolt")
    1
    """
    if product in products:
        return list(products).index(str(product))
    if isinstance(product, str) or not 0 <= product < len(products):
        raise ValueError(
            f"The model has no product {product!r}. "
            f"It has: {', '.join(products) or 'a single one'}"
        )
    return int(product)


def product_name(products: Sequence[str], index: int) -> str:
    """Returns the name of a product by its index, or "unknown" below 0.

    Example:
    >>> product_name(("nut", "bolt"), -1)
    'unknown'
    """
    return products[index] if index >= 0 else UNKNOWN
