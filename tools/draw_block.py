"""Draws the pictures of the block: `python tools/draw_block.py`.

They are SVG files in docs/concepts/, in the colors of all other pages. On the
site they follow its light or dark scheme; alone, that of the system.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from keras_sspcab.pages import design

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "concepts"

RULES = """
.draw text { font: 17px system-ui, sans-serif; fill: var(--ink);
  text-anchor: middle; }
.draw .quiet { fill: var(--muted); font-size: 15px; }
.draw .key { text-anchor: start; }
.draw .on { fill: var(--on-accent); }
.draw .cell { fill: var(--surface); stroke: var(--control); }
.draw .seen { fill: var(--accent); stroke: var(--control); }
.draw .mask { fill: var(--anomalous); stroke: var(--control); }
.draw .line { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.draw .head { fill: var(--ink); }
.draw .loss { stroke: var(--anomalous); stroke-dasharray: 5 4; }
"""


def palettes() -> list[str]:
    """Returns the colors of the pages, light and dark, as declarations."""
    return [
        "".join(f"{line}; " for line in re.findall(r"--[\w-]+: #\w+", part))
        for part in re.findall(r":root \{(.*?)\}", design(), re.S)[:2]
    ]


def style() -> str:
    """The colors and rules of a drawing that stands alone."""
    light, dark = palettes()
    return (
        f"<style>:root {{ {light}}}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}"
        f"{RULES}</style>"
    )


def drawing(width: int, height: int, *parts: str) -> str:
    """A whole file."""
    return "\n".join(
        (
            '<svg xmlns="http://www.w3.org/2000/svg" class="draw" '
            f'viewBox="0 0 {width} {height}">',
            style(),
            *parts,
            "</svg>\n",
        )
    )


def text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{words}</text>'


def box(
    x: float, y: float, width: float, height: float, kind: str, r: int = 2
) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
        f'rx="{r}" class="{kind}"/>'
    )


def arrow(*points: tuple[float, float], kind: str = "line") -> str:
    """A line over these points with a head at its end."""
    (x0, y0), (x1, y1) = points[-2:]
    line = " ".join(f"{x:g},{y:g}" for x, y in points)
    dx, dy = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)
    base = (x1 - 8 * dx, y1 - 8 * dy)
    head = [
        (x1, y1),
        (base[0] + 4 * dy, base[1] + 4 * dx),
        (base[0] - 4 * dy, base[1] - 4 * dx),
    ]
    corners = " ".join(f"{x:g},{y:g}" for x, y in head)
    return (
        f'<polyline points="{line}" class="{kind}"/>'
        f'<polygon points="{corners}" class="head"/>'
    )


def field(x: float, y: float, corner: int, gap: int, cell: int = 22) -> str:
    """The receptive field for `k'`, the side of a corner, and `d`, the gap."""
    side = 2 * corner + 2 * gap + 1
    weighted = {*range(corner), *range(side - corner, side)}

    def cells() -> Iterator[str]:
        for row in range(side):
            for column in range(side):
                kind = "cell"
                if row in weighted and column in weighted:
                    kind = "seen"
                elif row == column == side // 2:
                    kind = "mask"
                yield box(x + cell * column, y + cell * row, cell, cell, kind)

    return "".join(cells())


def draw_field() -> str:
    """What the masked convolution sees, for three choices of k' and d."""
    parts = []
    for middle, corner, gap, words in (
        (70, 1, 1, "the defaults"),
        (260, 1, 3, "looks farther away"),
        (470, 2, 1, "sees more"),
    ):
        side = 22 * (2 * corner + 2 * gap + 1)
        parts += [
            field(middle - side / 2, 110 - side / 2, corner, gap),
            text(middle, 240, f"k' = {corner}, d = {gap}"),
            text(middle, 261, words, "quiet"),
        ]
    for x, kind, words in (
        (10, "seen", "seen, with weights"),
        (190, "mask", "predicted, masked"),
        (370, "cell", "not looked at"),
    ):
        parts += [
            box(x, 286, 16, 16, kind),
            text(x + 24, 299, words, "quiet key"),
        ]
    return drawing(570, 312, *parts)


def step(x: float, y: float, width: float, *lines: str) -> str:
    """A box with words in it."""
    top = y + 30 - 9 * (len(lines) - 1) + 4
    return box(x, y, width, 60, "cell", 6) + "".join(
        text(x + width / 2, top + 18 * row, words, "quiet" if row else "")
        for row, words in enumerate(lines)
    )


def draw_block() -> str:
    """From the input to the output, with the gate and the loss."""
    return drawing(
        600,
        300,
        text(325, 18, "channel attention", "quiet"),
        step(150, 28, 110, "mean", "of each map"),
        arrow((260, 58), (282, 58)),
        step(282, 28, 86, "dense", "C / r"),
        arrow((368, 58), (390, 58)),
        step(390, 28, 110, "dense", "C, sigmoid"),
        step(5, 130, 80, "input", "x"),
        arrow((85, 160), (105, 160)),
        step(105, 130, 120, "masked conv", "ReLU"),
        arrow((225, 160), (430, 160)),
        arrow((245, 160), (245, 88)),
        arrow((445, 88), (445, 145)),
        '<circle cx="445" cy="160" r="15" class="cell"/>',
        text(445, 166, "&#215;"),
        arrow((460, 160), (485, 160)),
        step(485, 130, 110, "output", "prediction y"),
        arrow((45, 190), (45, 260), (185, 260), kind="line loss"),
        arrow((540, 190), (540, 260), (415, 260), kind="line loss"),
        step(185, 230, 230, "loss: λ · mean (y - x)²", "added to the model's"),
    )


def draw_place() -> str:
    """Where the block sits in a network."""
    names = ("image", "conv", "conv", "SSPCAB", "conv", "output")
    parts = []
    for index, name in enumerate(names):
        x = 5 + 101 * index
        block = name == "SSPCAB"
        parts += [
            box(x, 10, 78, 44, "seen" if block else "cell", 6),
            text(x + 39, 38, name, "on" if block else ""),
        ]
        if index:
            parts.append(arrow((x - 23, 32), (x, 32)))
    parts.append(text(347, 78, "was the last convolution but one", "quiet"))
    return drawing(595, 90, *parts)


DRAWINGS = {
    "field.svg": draw_field,
    "block.svg": draw_block,
    "place.svg": draw_place,
}


def main() -> None:
    for name, draw in DRAWINGS.items():
        (FOLDER / name).write_text(draw(), "utf-8")


if __name__ == "__main__":
    main()
