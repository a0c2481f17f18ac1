# SPDX-License-Identifier: Apache-2.0
"""Read tests/golden/*.npz: torch names and layouts become our parameter tree."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from trm_jax.training.build import make_recipe
from trm_jax.training.config import default_config, read_run
from trm_jax.types import Batch
from trm_jax.weights import published

GOLDEN = Path(__file__).parents[1] / "golden"
MAMBA2 = {
    "in_proj.weight": ("in_proj", "kernel"),
    "conv1d.weight": ("conv_kernel",),
    "conv1d.bias": ("conv_bias",),
    "dt_bias": ("dt_bias",),
    "A_log": ("A_log",),
    "D": ("D",),
    "norm.weight": ("norm_weight",),
    "out_proj.weight": ("out_proj", "kernel"),
}
MAMBA1 = {
    "in_proj.weight": ("in_proj", "kernel"),
    "conv1d.weight": ("conv_kernel",),
    "conv1d.bias": ("conv_bias",),
    "x_proj.weight": ("x_proj", "kernel"),
    "dt_proj.weight": ("dt_proj", "kernel"),
    "dt_proj.bias": ("dt_bias",),
    "A_log": ("A_log",),
    "D": ("D",),
    "out_proj.weight": ("out_proj", "kernel"),
}
# The published names of every operator in these files.
SUBLAYERS = {
    **published.SUBLAYERS,
    "mamba1": {f"ssm.{name}": "/".join(path) for name, path in MAMBA1.items()},
    "mamba2": {f"mamba.{name}": "/".join(path) for name, path in MAMBA2.items()},
}


def to_layout(name, array):
    """A torch array in our layout: linear weights and convolutions transposed."""
    if name.endswith("conv1d.weight"):
        return array[:, 0].T  # f 1 w -> w f
    return array.T if published.is_transposed(name) else array


def to_params(torch_weights, c):
    """Torch arrays by name -> nested parameters, with the settings `c` of a file."""
    rule = "hrm" if c.get("H_layers") else "trm"
    paths = published.names(
        layers_of(c),
        published.NETWORKS[rule],
        learned_positions=c["pos_encodings"] == "learned",
        # A block of the original: one of `kinds`, or a mixer and a SwiGLU.
        per_block=1 if "kinds" in c else 2,
        sublayers=SUBLAYERS,
    )
    flat = {}
    for name, array in torch_weights.items():
        _, *path = paths[name.removeprefix("inner.")].split("/")
        flat[tuple(path)] = to_layout(name, array)
    return unflatten_dict(flat)


def layers_of(c):
    """The names of our sublayers."""
    mixer = "token_mlp" if c.get("mlp_t") else "attention"
    mixer = "mamba1" if "ssm_inner_size" in c else mixer
    return tuple(c.get("kinds", [mixer, "swiglu"] * c["L_layers"]))


def config_and_sizes(c, dtype, implementation="auto"):
    """The config of a file, and the sizes of its data, from the official settings."""
    config = default_config()
    c = {"mlp_t": False, "puzzle_emb_len": 1} | c
    layers = layers_of(c)
    positions = c["pos_encodings"]
    operators = {
        "attention": {
            "num_heads": c["num_heads"],
            "positions": "rope" if positions == "rope" else "none",
        },
        "swiglu": {"expansion": c["expansion"], "width": c.get("swiglu_width", 0)},
        "token_mlp": {
            "expansion": c["expansion"],
            "width": c.get("token_mlp_width", 0),
        },
        "mamba1": {"chunk_size": 8},
        "mamba2": {
            "head_dim": 8,
            "d_state": c.get("mamba", {}).get("d_state", 16),
            "chunk_size": 8,
            "implementation": implementation,
        },
    }
    model = config["model"]
    for name in set(layers) & set(operators):
        model[name].update(operators[name])
    model.update(layers=layers, d_model=c["hidden_size"], dtype=dtype)
    model.update(prefix_len=c["puzzle_emb_len"], puzzle_dim=c["puzzle_emb_ndim"])
    model.update(positions="learned" if positions == "learned" else "none")
    rule = "hrm" if c.get("H_layers") else "trm"
    config["rule"]["name"] = rule
    config["rule"][rule].update(h_cycles=c["H_cycles"], l_cycles=c["L_cycles"])
    config["halting"].update(
        max_supervision_steps=c["halt_max_steps"],
        explore_rate=c["halt_exploration_prob"],
    )
    config["train"].update(batch_size=c["batch_size"], log_every=1)
    config["eval"].update(batch_size=c["batch_size"])
    config["mesh"].update(data=1)
    sizes = {
        "vocab_size": c["vocab_size"],
        "grid_shape": (1, c["seq_len"]),
        "num_puzzles": c["num_puzzle_identifiers"],
        "blank": -1,
    }
    return config, sizes


def official_config(file):
    return json.loads(file["config"].tobytes())


def batch_of(arrays):
    """Batch from the official inputs, labels (-100: none) and puzzle ids."""
    labels = arrays["labels"]
    return Batch(
        inputs=arrays["inputs"],
        labels=np.where(labels == -100, 0, labels),
        label_mask=labels != -100,
        puzzle_id=arrays["puzzle_identifiers"],
        weight=np.ones(len(labels), np.float32),
    )


def split_weights(file, c):
    """Parameters, constants and puzzle table of a file."""
    weights = {k.removeprefix("weights/"): file[k] for k in file if "weights/" in k}
    weights = {k: v for k, v in weights.items() if not k.startswith("train")}
    constants = {"y": weights.pop("inner.H_init"), "z": weights.pop("inner.L_init")}
    table = weights.pop("inner.puzzle_emb.weights")
    params = to_params(weights, c)
    return jax.tree.map(jnp.asarray, (params, constants, table))


def load(name, dtype="float32", implementation="auto"):
    """Recipe, weights, batches and expectations of one golden file."""
    file = np.load(GOLDEN / f"{name}.npz")
    c = official_config(file)
    config, sizes = config_and_sizes(c, dtype, implementation)
    params, constants, table = split_weights(file, c)

    def batch(i):
        names = ("inputs", "labels", "puzzle_identifiers")
        return batch_of({name: file[f"batch{i}/{name}"] for name in names})

    def grads(i):
        prefix = f"train{i}/grads/"
        found = {k.removeprefix(prefix): file[k] for k in file if k.startswith(prefix)}
        vectors = found.pop("puzzle_emb.local_weights")
        ids = found.pop("puzzle_emb.local_ids")
        params = to_params(found, c)
        return params, vectors, ids

    num_batches = sum(key.startswith("batch") and "inputs" in key for key in file)
    return SimpleNamespace(
        file=file,
        recipe=make_recipe(config, sizes, read_run(config)),
        params=params,
        constants=constants,
        table=table,
        batches=[jax.tree.map(jnp.asarray, batch(i)) for i in range(num_batches)],
        grads=grads,
    )
