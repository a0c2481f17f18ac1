# SPDX-License-Identifier: Apache-2.0
"""One HTML file out of the templates, scripts and styles in pages/, with its data.

A page loads nothing: no network, no other file. A template says in double braces what
is put there: `{{ data }}`, or names of files, `{{ grid.js chart.js }}`. After `(text)`
come scripts that the page hands to a worker and does not run itself.
"""

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

from trm_jax.errors import ConfigError

_PAGES = Path(__file__).parent / "pages"
_SLOT = re.compile(r"\{\{ (.*?) \}\}")


def assemble(template: str, data: dict[str, Any]) -> str:
    """The page `template` (a file in pages/) with `data`, which the page reads as JSON.

    Raises ConfigError if a number in `data` is not finite.
    """
    try:
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise ConfigError(f"the data of {template}: {error}") from error
    # Compressed, since grids repeat; as base64, the data cannot end the element early.
    packed = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()

    def filled(slot: re.Match[str]) -> str:
        if slot[1] == "data":
            return f'<script type="text/plain" id="data">{packed}</script>'
        names = slot[1].removeprefix("(text) ")
        return "\n".join(_embedded(name, names == slot[1]) for name in names.split())

    return _SLOT.sub(filled, _read(template))


def _read(name: str) -> str:
    return (_PAGES / name).read_text(encoding="utf-8")


def _embedded(name: str, runs: bool) -> str:
    """A style or a script as an element of the page."""
    stem, kind = name.split(".")
    if kind == "css":
        return f"<style>\n{_read(name)}</style>"
    head = "<script>" if runs else f'<script type="text/plain" id="{stem}">'
    return f"{head}\n{_read(name)}</script>"
