# SPDX-License-Identifier: Apache-2.0
"""What notebooks show: figures and pages, which a plain script writes to files.

A notebook is also a script (notebooks/README.md). The same cells then write what they
would show to the folder `figures` in the current folder.
"""

import html
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from trm_jax.errors import SaveError
from trm_jax.files import write_whole
from trm_jax.inspect import style

FOLDER = Path("figures")
DPI = 130
_INCH = 96  # pixels of a page


@contextmanager
def figure(
    name: str,
    rows: int = 1,
    columns: int = 1,
    *,
    size: tuple[float, float],
    **subplots: Any,
) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield a figure and its axes `rows columns`, and show it at the end.

    `size` is width and height in inches; `subplots` are options of matplotlib's
    function of this name. A script writes `figures/NAME.png`. Raises SaveError if it
    cannot, and ImportError without matplotlib.
    """
    out = io.BytesIO()
    with style.drawing(rows, columns, size=size, **subplots) as (drawn, axes):
        yield drawn, axes
        drawn.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    _show(f"{name}.png", out.getvalue(), width=round(size[0] * _INCH))


def picture(path: str | Path, *, width: int = 0) -> None:
    """Show a picture that has been written, `width` pixels wide (0: as it is)."""
    place = Path(path)
    _show(place.name, place.read_bytes(), width=width)


def page(name: str, text: str, *, height: int) -> None:
    """Show a whole HTML page in a frame, `height` pixels high.

    A script writes `figures/NAME.html`. Raises SaveError if it cannot.
    """
    if shown := _display():
        source = html.escape(text)
        look = f"width:100%;height:{height}px;border:1px solid #dddddd"
        frame = f'<iframe srcdoc="{source}" style="{look}"></iframe>'
        shown.display(shown.HTML(f"<div>{frame}</div>"))
    else:
        _write(f"{name}.html", text)


def write(name: str, content: str | bytes) -> None:
    """Write the file `figures/NAME` and print where it is. Raises SaveError."""
    print(f"written to {_write(name, content)}")  # noqa: T201  what a cell says


def _show(name: str, png: bytes, *, width: int) -> None:
    if shown := _display():
        shown.display(shown.Image(data=png, format="png", width=width or None))
    else:
        _write(name, png)


def _write(name: str, content: str | bytes) -> Path:
    try:
        FOLDER.mkdir(exist_ok=True)
    except OSError as error:
        raise SaveError(f"{FOLDER} cannot be made: {error.strerror}") from error
    write_whole(FOLDER / name, content, SaveError)
    return FOLDER / name


def _display() -> Any:
    """The module IPython.display in a notebook, or None in a script."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return sys.modules.get("IPython.display") if hasattr(shell, "kernel") else None
