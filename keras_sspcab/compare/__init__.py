"""Comparing hosts with and without the block, over seeds and data.

`ComparisonRun` trains and evaluates every combination in a run folder of its
own, and writes tables and a figure: the command `keras-sspcab compare`.
"""

from keras_sspcab.imports import lazy_names

__all__ = ["ComparisonRun", "ComparisonSpec"]

__getattr__ = lazy_names(
    __name__,
    {
        "ComparisonRun": "keras_sspcab.compare.runner",
        "ComparisonSpec": "keras_sspcab.compare.runner",
    },
)


def __dir__() -> list[str]:
    return __all__
