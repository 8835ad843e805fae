"""Hooks of the documentation: what its pages take from outside of docs/.

Measurements, changes and the guide for contributors are pages as they stand in
the repository. Links are those of the repository, where all of them work, and
are turned here into those of the site.
"""

import html
import importlib
import inspect
import posixpath
import re
import shutil
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from draw_block import palettes  # beside this file
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]

#: Files outside of docs/ that are a part of the site, and where.
BORROWED = {
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code_of_conduct.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "export/README.md": "export/README.md",
    **{
        path.relative_to(ROOT).as_posix(): path.relative_to(ROOT).as_posix()
        for pattern in ("benchmarks/*.md", "benchmarks/results/*.csv")
        for path in sorted(ROOT.glob(pattern))
    },
}

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
# As in Keras, examples stand below their title, not indented; Google's style
# wants them indented, below another title.
_EXAMPLE = re.compile(
    r'^( *)Example:\n(\1 *>>> .*?)(?=^\1(?:"""|[A-Z][\w ]+:$))', re.S | re.M
)
_CODE = re.compile(r"(^ *```.*?^ *```|`[^`\n]+`)", re.S | re.M)


@event_priority(100)  # before the reader of docstrings looks for the folder
def on_config(config: Any) -> None:
    """Lays the modules out as they are installed, so that they are found."""
    # Kept until the process ends; each build has its own.
    config.extra["source"] = folder = tempfile.TemporaryDirectory()
    handlers = config.plugins["mkdocstrings"].config.handlers
    handlers["python"]["paths"] = [folder.name]
    source = Path(folder.name)
    package = source / "keras_sspcab"
    only_code = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "keras_sspcab", package, ignore=only_code)
    for name in ("applications", "export"):
        shutil.copytree(ROOT / name, package / name, ignore=only_code)
    for path in package.rglob("*.py"):
        code = _readable(path.read_text("utf-8"))
        if path.name == "__init__.py":
            code += _lazy_imports(path.parent.relative_to(source), code)
        path.write_text(code, "utf-8")


def _readable(code: str) -> str:
    """The code with what the reader of docstrings does not understand."""
    code = re.sub(r"^( *)Reference:$", r"\1References:", code, flags=re.M)

    def indent(match: re.Match[str]) -> str:
        lines = textwrap.dedent(match[2])
        return f"{match[1]}Examples:\n" + textwrap.indent(
            lines, match[1] + "    "
        )

    return _EXAMPLE.sub(indent, code)


def _lazy_imports(package: Path, code: str) -> str:
    """Imports of what a package imports only when it is asked for."""
    if "lazy_names(" not in code:
        return ""
    getter = importlib.import_module(".".join(package.parts)).__getattr__
    homes = inspect.getclosurevars(getter).nonlocals["homes"]
    return "".join(
        f"\nfrom {home} import {name}" for name, home in homes.items()
    )


def on_files(files: Files, config: Any) -> Files:
    """Adds the colors of all pages, and the files outside of docs/."""
    for source, target in BORROWED.items():
        files.append(
            File.generated(config, target, abs_src_path=str(ROOT / source))
        )
    colors = "\n".join(
        f'[data-md-color-scheme="{scheme}"] {{ {palette}}}'
        for scheme, palette in zip(
            ("default", "slate"), palettes(), strict=True
        )
    )
    name = "stylesheets/colors.css"
    files.append(File.generated(config, name, content=colors))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turns links of the repository into those of the site."""
    source = Path(page.file.abs_src_path).resolve().relative_to(ROOT)
    here = posixpath.dirname(page.file.src_uri)

    def turn(match: re.Match[str]) -> str:
        mark, text, link = match.groups()
        target, _, anchor = link.partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        path = posixpath.normpath((source.parent / target).as_posix())
        if mark and path.endswith(".svg"):
            return _drawing(ROOT / path, text)
        if path in BORROWED:
            path = BORROWED[path]
        elif path.startswith("docs/"):
            path = path.removeprefix("docs/")
        elif config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/{path})"
        else:
            return text
        link = posixpath.relpath(path, here or ".")
        return f"{mark}[{text}]({link}{'#' if anchor else ''}{anchor})"

    parts = _CODE.split(markdown)
    return "".join(
        part if index % 2 else _LINK.sub(turn, part)
        for index, part in enumerate(parts)
    )


def _drawing(path: Path, text: str) -> str:
    """A drawing as a part of the page, so that it follows its colors."""
    drawing = path.read_text("utf-8").partition("<svg")[2]
    label = html.escape(text, quote=True)
    svg = f'<svg role="img" aria-label="{label}"{drawing}'
    return f"<div>{svg.strip()}</div>"
