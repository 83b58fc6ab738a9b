"""The style of pictures, with matplotlib where it is installed.

The background is transparent, and all inks are of a middling brightness, so that a picture is legible on white paper
and on a dark page.  Lines of one panel differ in their dashes, too, for prints without colours.
"""

from __future__ import annotations

from typing import Any

# Each has a contrast of 4 or more to white and to #0d1117.
INK = "#777b80"
BLUE, ORANGE, GREEN, RED = "#2b7fd4", "#c4641c", "#2f8a4c", "#d1495b"

SOLID: Any = "-"
DASHED: Any = (0, (5, 2))
DOTTED: Any = (0, (1.5, 1.5))

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "txutp",  # the same data give the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.3,
}
