# SPDX-License-Identifier: Apache-2.0
"""How every figure looks: fonts, and colours that colour-blind readers tell apart."""

import hashlib
import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from trm_jax.errors import ConfigError, SaveError
from trm_jax.files import write_whole

# The palette of Okabe and Ito without its yellow, which is too light on white.
COLORS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
)
GREY = "#767676"
_GRID = "#DDDDDD"
_LINES = ("-", "--", ":", "-.")
# What makes two pictures of the same data the same bytes.
_UNDATED = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}
SUFFIXES = tuple(_UNDATED)
_RC = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.prop_cycle": f"cycler('color', {list(COLORS)})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.dpi": 100,
    "font.size": 9,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "pdf.fonttype": 42,  # fonts that journals accept
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "trm_jax",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


def line_style(index: int) -> dict[str, Any]:
    """Colour and kind of line of the run `index`; 28 of them differ."""
    kind = _LINES[index // len(COLORS) % len(_LINES)]
    return {"color": COLORS[index % len(COLORS)], "linestyle": kind}


def draw_band(axis: Any, x: Any, values: Any, **look: Any) -> None:
    """Draw the mean of curves `n x`, in a band from the least to the greatest value."""
    curves = np.asarray(values)
    (line,) = axis.plot(x, curves.mean(0), **look)
    band = {"color": line.get_color(), "alpha": 0.2, "linewidth": 0}
    axis.fill_between(x, curves.min(0), curves.max(0), **band)


@contextmanager
def picture(
    path: str | Path, rows: int = 1, columns: int = 1, *, size: tuple[float, float]
) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield a figure and its axes `rows columns`; at the end, write it to `path`.

    `size` is width and height in inches. The suffix of `path` is .png, .svg or .pdf.

    Raises ConfigError for another suffix, SaveError if the file cannot be written, and
    ImportError without matplotlib.
    """
    target = Path(path)
    if target.suffix not in _UNDATED:
        expected = ", ".join(SUFFIXES)
        raise ConfigError(f"{path}: expected a name that ends in one of {expected}")
    out = io.BytesIO()
    with drawing(rows, columns, size=size) as (figure, axes):
        yield figure, axes
        kind = target.suffix[1:]
        figure.savefig(out, format=kind, metadata=_UNDATED[target.suffix])
    write_whole(target, out.getvalue(), SaveError)


@contextmanager
def drawing(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float], **subplots: Any
) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield a figure and its axes in this style, whatever the user's own style is."""
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _RC]):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False, **subplots)


def as_svg(figure: Any, title: str) -> str:
    """The figure as an SVG element of a page, which decides on font, width and colours.

    The page defines the CSS variables --ink, --grid, --c0, --c1, ... for the colours.
    """
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata=_UNDATED[".svg"], transparent=True)
    text = out.getvalue()
    head, _, body = text[text.index("<svg") :].partition(">")
    for unwanted in (r"<metadata>.*?</metadata>", r"<defs>\s*<style.*?</defs>"):
        body = re.sub(unwanted, "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    # The names of parts must differ between the pictures of a page.
    prefix = hashlib.sha256(title.encode()).hexdigest()[:6]
    body = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}", body)
    colors = {COLORS[-1]: "--ink", _GRID: "--grid"}
    colors |= {color: f"--c{i}" for i, color in enumerate(COLORS[:-1])}
    for color, name in colors.items():
        body = body.replace(color.lower(), f"var({name})")
    box = re.search(r'viewBox="[^"]*"', head)
    label = html.escape(title)
    return f'<svg {box[0] if box else ""} role="img" aria-label="{label}">{body}'
