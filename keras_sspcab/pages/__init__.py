"""One design for every page that people look at.

`design.css` holds colors, type, focus ring and parts such as tiles, tables,
badges, buttons, gauges and the legend of heat maps. A page adds only what no
other has.
"""

import functools
import importlib.resources

__all__ = ["design"]


@functools.cache
def design() -> str:
    """Returns the style sheet that all pages share.

    Example:
        >>> "--accent" in design()
        True
    """
    file = importlib.resources.files(__package__) / "design.css"
    return file.read_text("utf-8")
