# SPDX-License-Identifier: Apache-2.0
"""A page that runs a trained Sudoku model: a visitor types a puzzle and watches.

python -m trm_jax.inspect.playground WEIGHTS page.html [--seed=N]

WEIGHTS is anything that `trm_jax.load` takes. The page holds the averaged weights and
needs nothing else: it computes in float32, in the browser. It can run TRM of token_mlp
and swiglu layers. The example puzzles are made by the generator from --seed.
"""

import argparse
import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from trm_jax.beside import pipeline
from trm_jax.errors import CheckpointError, ConfigError, SaveError
from trm_jax.files import write_whole
from trm_jax.inspect.html_page import assemble
from trm_jax.model.positions import vectors

LAYERS = ("token_mlp", "swiglu")
# Givens of the examples, as shares of the cells; 0 is as few as possible.
EXAMPLES = (0.55, 0.45, 0.45, 0.35, 0.35, 0, 0)


def page(model: Any, *, seed: int = 0) -> str:
    """The page of a `trm_jax.Model`, with example puzzles drawn from `seed`.

    Raises ConfigError if the page cannot run the model.
    """
    check(model.config)
    config = model.config
    box = config["data"]["sudoku"]["box_rows"], config["data"]["sudoku"]["box_cols"]
    side = box[0] * box[1]
    spec = model_spec(model, side)
    rule, count = (
        config["rule"]["trm"],
        sum(x.size for x in jax.tree.leaves(model.params)),
    )
    facts = {
        "model": "TRM with MLP-t",
        "parameters": f"{count:,}",
        "layers": ", ".join(spec["layers"]),
        "width": spec["d_model"],
        "network calls per step": rule["h_cycles"] * (rule["l_cycles"] + 1),
        "updates": f"{model.step:,}",
        "trained in": config["model"]["dtype"],
    }
    steps = config["eval"]["supervision_steps"]
    data = {
        "title": f"A model thinks: Sudoku {side}x{side}",
        "facts": facts,
        "box": box,
        "steps": steps or config["halting"]["max_supervision_steps"],
        "examples": [{"puzzle": text} for text in examples(box, seed)],
        "model": spec,
    }
    return assemble("playground.html", data)


def check(config: Mapping[str, Any]) -> None:
    """Raise ConfigError if the page cannot run models of this config."""
    task, rule = config["data"]["task"], config["rule"]["name"]
    if task != "sudoku":
        raise ConfigError(f"data.task = {task!r}; the playground expects 'sudoku'")
    if rule != "trm":
        raise ConfigError(f"rule.name = {rule!r}; the playground expects 'trm'")
    if (starts := config["rule"]["trm"]["starts"]) != "published":
        raise ConfigError(
            f"rule.trm.starts = {starts!r}; the playground expects 'published'"
        )
    if other := sorted({*config["model"]["layers"]} - {*LAYERS}):
        raise ConfigError(
            f"model.layers has {', '.join(other)}; the playground can run only "
            f"{' and '.join(LAYERS)}"
        )
    for name in LAYERS:
        if config["model"][name]["inner_norm"]:
            raise ConfigError(
                f"model.{name}.inner_norm = True; the playground expects False"
            )


def model_spec(model: Any, side: int) -> dict[str, Any]:
    """What pages/trm.js reads: sizes, settings, and the weights as base64 float32."""
    settings, rule = model.config["model"], model.config["rule"]["trm"]
    params, width = model.params, settings["d_model"]
    prefix = np.zeros((settings["prefix_len"], width), np.float32)
    if settings["prefix_len"]:
        vector = np.asarray(model.table[0])  # of the blank puzzle id
        prefix.reshape(-1)[: len(vector)] = vector
    if settings["registers"]:
        prefix = np.concatenate([prefix, params["registers"]])
    arrays = {
        "y": model.constants["y"],
        "z": model.constants["z"],
        "prefix": prefix,
        "head": params["head"]["kernel"],
    }
    names = "embed_tokens", "halt_kernel", "halt_bias"
    arrays |= {name: params[name] for name in names}
    if units := model.bound().config.position_units:
        arrays["positions"] = vectors(params, units)
    for layer, weights in params["net"].items():
        for name, weight in weights.items():
            kernel = weight["kernel"] if isinstance(weight, Mapping) else weight
            arrays[f"{layer}/{name}"] = kernel
    return {
        "d_model": width,
        "prefix_len": len(prefix),
        "num_cells": side**2,
        "vocab_size": len(params["embed_tokens"]),
        "layers": list(settings["layers"]),
        "norm": settings["norm"],
        "h_cycles": rule["h_cycles"],
        "l_cycles": rule["l_cycles"],
        "halt_position": model.config["halting"]["halt_position"],
        "cell_loss": rule["cell_loss"],
        "arrays": {name: _base64(array) for name, array in arrays.items()},
    }


def _base64(array: Any) -> str:
    return base64.b64encode(np.asarray(array, "<f4").tobytes()).decode()


def examples(box: tuple[int, int], seed: int) -> list[str]:
    """Puzzles with one solution each, from many givens to few."""
    shape = pipeline("sudoku.grid").SudokuShape(*box)
    generate, decode = (
        pipeline("sudoku.generator").generate,
        pipeline("sudoku.grid").decode,
    )
    found = []
    for number, share in enumerate(EXAMPLES):
        clues = (round(share * shape.num_cells),) * 2
        own_seed = seed * len(EXAMPLES) + number  # another grid for each
        drawn, _ = generate(shape, (1, 1), clues=clues, seed=own_seed)
        found.append(decode(drawn.inputs[0]))
    return sorted(found, key=lambda text: text.count("."))


def main(argv: list[str]) -> int:
    """Run as the command line says; wrong input is one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m trm_jax.inspect.playground")
    parser.add_argument("weights", metavar="WEIGHTS")
    parser.add_argument("out", type=Path, metavar="page.html")
    parser.add_argument("--seed", type=int, default=0, help="of the example puzzles")
    args = parser.parse_args(argv)
    import trm_jax  # this command is a user of the package

    errors = (ConfigError, CheckpointError, pipeline("errors").DataError, SaveError)
    try:
        text = page(trm_jax.load(args.weights), seed=args.seed)
        write_whole(args.out, text, SaveError)
    except errors as error:
        parser.error(str(error))
    size = len(text.encode()) / 2**20
    pipeline("console").say(
        f"written to {args.out}: {size:.2f} MiB; open it in a browser\n"
    )
    return 0


if __name__ == "__main__":
    pipeline("console").run(main)
