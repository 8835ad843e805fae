"""The command line `keras-sspcab`: from data to scores, reports and exports.

`--help` is immediate, and works whatever is missing.
"""

from typing import TYPE_CHECKING

from keras_sspcab.imports import lazy_names

if TYPE_CHECKING:
    from keras_sspcab.cli.program import app

__all__ = ["app"]

__getattr__ = lazy_names(__name__, {"app": f"{__name__}.program"})
