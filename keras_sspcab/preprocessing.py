"""How image files become inputs of a model; kept with the model."""

import dataclasses
from typing import Any, Literal, get_args

from keras_sspcab.checks import standardize_choice

#: The brightest values that sensors of 8 to 16 bits write into 16-bit files.
WHITE_LEVELS = (255, 1023, 4095, 16383, 65535)

#: The ways to resize.
ResizeMethod = Literal["bilinear", "area", "opencv"]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How image files become inputs of a model.

    Attributes:
        white_level: The value that becomes 1.0 in files with 16 bits a value:
            one of `WHITE_LEVELS`. Sensors with 12 bits, for example, write 0 to
            4095. In files with 8 bits it is always 255.
        resize: How images and frames of another size are resized: `"bilinear"`
            with antialiasing, `"area"` or, as much published code does,
            `"opencv"`; see `keras_sspcab.data.resize`. Defaults to
            `"bilinear"`.

    Example:
    >>> Preprocessing.covering(3000)
    Preprocessing(white_level=4095, resize='bilinear')
    """

    white_level: int = WHITE_LEVELS[-1]
    resize: ResizeMethod = "bilinear"

    def __post_init__(self) -> None:
        if self.white_level not in WHITE_LEVELS:
            raise ValueError(
                "The white level must be the largest value of 8, 10, 12, 14 or "
                f"16 bits: {', '.join(map(str, WHITE_LEVELS))}. Received: "
                f"white_level={self.white_level!r}"
            )
        methods = get_args(ResizeMethod)
        method = standardize_choice(self.resize, methods, "resize")
        object.__setattr__(self, "resize", method)

    @classmethod
    def covering(cls, brightest: int) -> "Preprocessing":
        """Returns that with the lowest white level for values up to one."""
        return cls(next(w for w in WHITE_LEVELS if w >= brightest))

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values, for JSON."""
        return dataclasses.asdict(self)

    def identity(self) -> dict[str, Any]:
        """Returns what the pixels follow from, for the names of caches.

        These and checkpoints are older than the choice of `resize`: it is
        missing where it is as it was then.
        """
        values = self.to_dict()
        if self.resize == "bilinear":
            del values["resize"]
        return values
