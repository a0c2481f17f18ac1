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

GOLDEN = Path(__file__).parents[1] / "golden"
TOP_LEVEL = {
    "inner.embed_tokens.embedding_weight": ("embed_tokens",),
    "inner.embed_pos.embedding_weight": ("embed_positions",),
    "inner.lm_head.weight": ("head", "kernel"),
    "inner.q_head.weight": ("halt_kernel",),
    "inner.q_head.bias": ("halt_bias",),
}
SUBLAYER = {
    "self_attn.qkv_proj.weight": ("attention", "qkv", "kernel"),
    "self_attn.o_proj.weight": ("attention", "out", "kernel"),
    "mlp.gate_up_proj.weight": ("swiglu", "gate_up", "kernel"),
    "mlp.down_proj.weight": ("swiglu", "down", "kernel"),
    "mlp_t.gate_up_proj.weight": ("token_mlp", "gate_up"),
    "mlp_t.down_proj.weight": ("token_mlp", "down"),
}
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
SUBLAYER |= {f"ssm.{name}": ("mamba1", *path) for name, path in MAMBA1.items()}
SUBLAYER |= {f"mamba.{name}": ("mamba2", *path) for name, path in MAMBA2.items()}


TRM_NETWORKS = {"L_level": "net"}
HRM_NETWORKS = {"L_level": "low", "H_level": "high"}


def to_layout(name, array):
    """A torch array in our layout: linear weights and convolutions transposed."""
    if name.endswith("conv1d.weight"):
        return array[:, 0].T  # f 1 w -> w f
    stays = "embed" in name or name.endswith("A_log")
    return array.T if array.ndim == 2 and not stays else array


def to_params(torch_weights, sublayers_per_block=1, networks=TRM_NETWORKS):
    """Torch arrays by name -> nested parameters.

    A block of the original has `sublayers_per_block` sublayers: a mixer, or a mixer
    and a SwiGLU.
    """
    flat = {}
    for name, array in torch_weights.items():
        if name in TOP_LEVEL:
            path = TOP_LEVEL[name]
        else:
            _, level, _, block, rest = name.split(".", 4)
            kind, *leaf = SUBLAYER[rest]
            second = sublayers_per_block == 2 and kind == "swiglu"
            index = sublayers_per_block * int(block) + second
            path = (networks[level], f"{index}_{kind}", *leaf)
        flat[path] = to_layout(name, array)
    return unflatten_dict(flat)


def config_and_sizes(c, dtype, implementation="auto"):
    """The config of a file, and the sizes of its data, from the official settings."""
    config = default_config()
    c = {"mlp_t": False, "puzzle_emb_len": 1} | c
    mixer = "token_mlp" if c["mlp_t"] else "attention"
    mixer = "mamba1" if "ssm_inner_size" in c else mixer
    layers = tuple(c.get("kinds", [mixer, "swiglu"] * c["L_layers"]))
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
    params = to_params(weights, sublayers_per_block(c), networks_of(c))
    return jax.tree.map(jnp.asarray, (params, constants, table))


def networks_of(c):
    """The names of our networks, by those of the file."""
    return HRM_NETWORKS if c.get("H_layers") else TRM_NETWORKS


def sublayers_per_block(c):
    return 1 if "kinds" in c else 2


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
        params = to_params(found, sublayers_per_block(c), networks_of(c))
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
