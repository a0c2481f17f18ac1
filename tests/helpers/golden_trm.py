# SPDX-License-Identifier: Apache-2.0
"""Reads tests/golden/trm_*.npz: torch names and layouts -> our parameter tree."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from trm_jax.model.config import ModelConfig
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
SUBLAYER |= {f"mamba.{name}": ("mamba2", *path) for name, path in MAMBA2.items()}


def to_layout(name, array):
    """A torch array in our layout: linear weights and convolutions transposed."""
    if name.endswith("conv1d.weight"):
        return array[:, 0].T  # f 1 w -> w f
    return array.T if array.ndim == 2 and "embed" not in name else array


def to_params(torch_weights, sublayers_per_block=1):
    """Torch arrays by name -> nested parameters.

    A block of the original holds `sublayers_per_block`: a mixer, then perhaps a SwiGLU.
    """
    flat = {}
    for name, array in torch_weights.items():
        if name in TOP_LEVEL:
            path = TOP_LEVEL[name]
        else:
            block, rest = name.removeprefix("inner.L_level.layers.").split(".", 1)
            kind, *leaf = SUBLAYER[rest]
            second = sublayers_per_block == 2 and kind == "swiglu"
            index = sublayers_per_block * int(block) + second
            path = ("network", f"{index}_{kind}", *leaf)
        flat[path] = to_layout(name, array)
    return unflatten_dict(flat)


def load(name, dtype="float32", ssd_implementation="auto"):
    """Config, weights, batches and expectations of one golden file."""
    file = np.load(GOLDEN / f"{name}.npz")
    c = json.loads(file["config"].tobytes())
    mixer = "token_mlp" if c["mlp_t"] else "attention"
    per_block = 1 if "kinds" in c else 2
    config = ModelConfig(
        layers=tuple(c.get("kinds", [mixer, "swiglu"] * c["L_layers"])),
        d_model=c["hidden_size"],
        num_heads=c["num_heads"],
        expansion=c["expansion"],
        swiglu_width=0,
        token_mlp_width=0,
        expand=2,
        head_dim=8,
        d_state=16,
        num_groups=1,
        d_conv=4,
        chunk_size=8,
        ssd_implementation=ssd_implementation,
        positions=c["pos_encodings"],
        rope_theta=1e4,
        prefix_len=c["puzzle_emb_len"],
        puzzle_dim=c["puzzle_emb_ndim"],
        h_cycles=c["H_cycles"],
        l_cycles=c["L_cycles"],
        max_supervision_steps=c["halt_max_steps"],
        explore_rate=c["halt_exploration_prob"],
        dtype=dtype,
        remat="none",
        vocab_size=c["vocab_size"],
        num_cells=c["seq_len"],
        num_puzzles=c["num_puzzle_identifiers"],
    )
    weights = {k.removeprefix("weights/"): file[k] for k in file if "weights/" in k}
    weights = {k: v for k, v in weights.items() if not k.startswith("train")}
    constants = {"y": weights.pop("inner.H_init"), "z": weights.pop("inner.L_init")}
    table = weights.pop("inner.puzzle_emb.weights")

    def batch(i):
        labels = file[f"batch{i}/labels"]
        return Batch(
            inputs=file[f"batch{i}/inputs"],
            labels=np.where(labels == -100, 0, labels),
            label_mask=labels != -100,
            puzzle_id=file[f"batch{i}/puzzle_identifiers"],
            weight=np.ones(len(labels), np.float32),
        )

    def grads(i):
        prefix = f"train{i}/grads/"
        found = {k.removeprefix(prefix): file[k] for k in file if k.startswith(prefix)}
        vectors = found.pop("puzzle_emb.local_weights")
        ids = found.pop("puzzle_emb.local_ids")
        return to_params(found, per_block), vectors, ids

    device = partial(jax.tree.map, jnp.asarray)
    return SimpleNamespace(
        file=file,
        config=config,
        params=device(to_params(weights, per_block)),
        constants=device(constants),
        table=jnp.asarray(table),
        batches=[device(batch(i)) for i in range(4)],
        grads=grads,
    )
