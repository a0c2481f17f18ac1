# SPDX-License-Identifier: Apache-2.0
"""The task of published weights, as far as the shapes of their tensors tell it."""

import math
from collections.abc import Mapping
from typing import Any

from trm_jax.beside import sizes_of
from trm_jax.errors import ConfigError
from trm_jax.weights.tensors import TABLE, Tensor

_BOXES = {(6, 16): (2, 2), (8, 36): (2, 3), (11, 81): (3, 3)}  # by tokens and cells
_USUAL_CELLS = {11: 81, 6: 900, 12: 900}  # of the published task, by tokens


def with_task(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str
) -> dict[str, Any]:
    """config.data with the task whose vocabulary and grid the tensors have.

    The number of cells follows from MLP-t or learned positions. Without these, it is
    that of the published task with this vocabulary: Sudoku 9x9 (11 tokens), mazes of
    30x30 (6) or ARC (12). Raises ConfigError if no task fits.
    """
    data = dict(config["data"])
    tokens = tensors["params/embed_tokens"].shape[0]
    cells = _USUAL_CELLS.get(tokens, 0)
    for path, tensor in tensors.items():
        if path.endswith(("/0_token_mlp/gate_up", "/embed_positions")):
            model = config["model"]
            cells = tensor.shape[0] - model["prefix_len"] - model["registers"]
    side = math.isqrt(max(cells, 0))
    if boxes := _BOXES.get((tokens, cells)):
        data["task"] = "sudoku"
        data["sudoku"] |= {"box_rows": boxes[0], "box_cols": boxes[1]}
    elif tokens in (6, 12) and side**2 == cells > 0:
        data["task"] = "maze" if tokens == 6 else "arc"
        data[data["task"]]["side"] = side
    else:
        size = f"{cells} cells" if cells else "an unknown number of cells"
        raise ConfigError(
            f"{where}: no task has {tokens} tokens and {size}; give a config of ours "
            "with the task of these weights"
        )
    return data


def data_sizes(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """The sizes that config.data implies, with as many ids as the table has rows."""
    data = config["data"]
    if data["task"] == "arc":  # its ids would be counted in files
        side = data["arc"]["side"]
        found = {"vocab_size": 12, "grid_shape": [side, side], "blank": -1}
    else:
        found = sizes_of(config)
    return found | {"num_puzzles": tensors[TABLE].shape[0]}
