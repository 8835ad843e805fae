"""One design for every page that people look at.

`design.css` holds colors, type, focus ring and parts such as tiles, tables,
badges, buttons, gauges and the legend of heat maps. `shared.js` is what pages
of servers share: questions, messages and the opacity of maps. A page adds only
what no other has.
"""

import base64
import functools
import importlib.resources

__all__ = ["data_url", "design", "shared_script"]


@functools.cache
def design() -> str:
    """Returns the style sheet that all pages share.

    Example:
        >>> "--accent" in design()
        True
    """
    return _read("design.css")


@functools.cache
def shared_script() -> str:
    """Returns the script that all pages of servers share.

    Example:
        >>> "async function ask(" in shared_script()
        True
    """
    return _read("shared.js")


def data_url(content: bytes, kind: str) -> str:
    """Returns an encoded image as an address that holds all of it.

    Example:
        >>> data_url(b"GIF89a", "gif")
        'data:image/gif;base64,R0lGODlh'
    """
    encoded = base64.b64encode(content).decode("ascii")
    return f"data:image/{kind};base64,{encoded}"


def _read(name: str) -> str:
    return (importlib.resources.files(__package__) / name).read_text("utf-8")
