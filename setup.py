"""What pyproject.toml cannot say: the README as package indexes show it."""

import re
import sys
from pathlib import Path

from setuptools import setup

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)]+)\)")


def readme() -> str:
    """Returns the README with links that lead somewhere outside of a clone.

    They point into the repository, once `[project.urls]` names one. Until then
    their texts remain, and what pictures show in words.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    address = project["project"].get("urls", {}).get("Repository")

    def replace(link: "re.Match[str]") -> str:
        mark, text, path = link.groups()
        if address:
            kind = "raw" if mark else "blob"
            return f"{mark}[{text}]({address}/{kind}/main/{path})"
        return text

    return _LINK.sub(replace, (ROOT / "README.md").read_text("utf-8"))


if __name__ == "__main__":
    setup(
        long_description=readme(),
        long_description_content_type="text/markdown",
    )
