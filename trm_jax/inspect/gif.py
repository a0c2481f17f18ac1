# SPDX-License-Identifier: Apache-2.0
"""A record of a trace as a moving picture, with Pillow."""

import io
from pathlib import Path
from typing import Any

from trm_jax.errors import ConfigError
from trm_jax.files import write_whole
from trm_jax.inspect.replay_record import marks

CELL, HEAD, EDGE = 36, 30, 8  # pixels
SHOWN_MS, LAST_MS = 500, 2500  # of a frame, and of the last one
PAPER, INK, LINE = "#ffffff", "#1a1a1a", "#b8b8b8"
# Colour-blind safe (Okabe and Ito); marks differ in brightness, too.
FILLS = {
    "given": "#e6e6e6",
    "wrong": "#e8a06a",
    "changed": "#f7ec9c",
    "right": "#ffffff",
    "": "#ffffff",
}


def write_gif(record: dict[str, Any], path: str | Path) -> None:
    """One frame for the question and one for every record, in a loop.

    Raises ConfigError without Pillow, or if the file cannot be written.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ConfigError("--gif needs Pillow: pip install pillow") from error
    rows, columns = record["shape"]
    cell = max(12, min(CELL, 900 // max(rows, columns)))
    size = columns * cell + 2 * EDGE, rows * cell + HEAD + 2 * EDGE
    last = len(record["steps"]) - 1
    frames = []
    for step in range(-1, last + 1):
        frame = Image.new("RGB", size, PAPER)
        _draw(frame, record, step, cell)
        frames.append(frame)
    times = [SHOWN_MS] * last + [SHOWN_MS, LAST_MS]
    out = io.BytesIO()
    more = {"append_images": frames[1:], "duration": times, "loop": 0}
    frames[0].save(out, format="GIF", save_all=True, **more)
    write_whole(Path(path), out.getvalue(), ConfigError)


def _draw(frame: Any, record: dict[str, Any], step: int, cell: int) -> None:
    from PIL import ImageDraw, ImageFont

    pen = ImageDraw.Draw(frame)
    small, large = (ImageFont.load_default(size) for size in (14, cell * 0.6))
    pen.text((EDGE, EDGE), _title(record, step), fill=INK, font=small)
    rows, columns = record["shape"]
    at = record["steps"][step] if step >= 0 else None
    tokens = at["tokens"] if at else record["question"]
    for i, (token, mark) in enumerate(zip(tokens, marks(record, step), strict=True)):
        left, top = EDGE + i % columns * cell, EDGE + HEAD + i // columns * cell
        box = (left, top, left + cell, top + cell)
        if record["colours"]:
            pen.rectangle(box, fill=record["colours"][token], outline=LINE)
            if mark in ("wrong", "changed"):
                inner = (left + 2, top + 2, left + cell - 2, top + cell - 2)
                pen.rectangle(inner, outline=FILLS[mark], width=2)
            continue
        pen.rectangle(box, fill=FILLS[mark], outline=LINE)
        symbol = record["symbols"][token].replace(".", " ")
        middle = (left + cell / 2, top + cell / 2)
        pen.text(middle, symbol, fill=INK, font=large, anchor="mm")
    box_rows, box_columns = record["box"] or (rows, columns)
    for r in range(0, rows + 1, box_rows):
        y = EDGE + HEAD + r * cell
        pen.line((EDGE, y, EDGE + columns * cell, y), fill=INK, width=2)
    for c in range(0, columns + 1, box_columns):
        x = EDGE + c * cell
        pen.line((x, EDGE + HEAD, x, EDGE + HEAD + rows * cell), fill=INK, width=2)


def _title(record: dict[str, Any], step: int) -> str:
    if step < 0:
        return "question"
    at = record["steps"][step]
    sure = f"{100 * at['halt_probability']:.0f} % sure"
    return f"step {at['step']} of {record['steps'][-1]['step']}: {sure}"
