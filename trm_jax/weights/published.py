# SPDX-License-Identifier: Apache-2.0
"""The published PyTorch layout of TRM and HRM: names, axes, and where sizes stand.

torch stores a linear layer as (out, in), and we as (in, out). The order of q, k, v and
that of gate and up are the same.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from trm_jax.errors import CheckpointError, ConfigError, SaveError
from trm_jax.files import write_whole
from trm_jax.weights import all_config, torch_file, torch_writer
from trm_jax.weights.all_config_writer import from_config
from trm_jax.weights.exchange import write_folder
from trm_jax.weights.task import data_sizes, with_task
from trm_jax.weights.tensors import TABLE, Bundle, Tensor

PREFIX = "_orig_mod.model.inner."  # of a compiled model inside its loss
_WRAPPERS = ("_orig_mod.", "module.", "model.", "inner.")
SETTINGS = "all_config.yaml"
_STEP = re.compile(r"step_(\d+)")
# The published names of what is in no layer, in their order.
AROUND = {
    "H_init": "constants/y",
    "L_init": "constants/z",
    "embed_tokens.embedding_weight": "params/embed_tokens",
    "lm_head.weight": "params/head/kernel",
    "q_head.weight": "params/halt_kernel",
    "q_head.bias": "params/halt_bias",
    "puzzle_emb.weights": TABLE,
}
POSITIONS = {"embed_pos.embedding_weight": "params/embed_positions"}
SUBLAYERS = {
    "attention": {
        "self_attn.qkv_proj.weight": "qkv/kernel",
        "self_attn.o_proj.weight": "out/kernel",
    },
    "token_mlp": {
        "mlp_t.gate_up_proj.weight": "gate_up",
        "mlp_t.down_proj.weight": "down",
    },
    "swiglu": {
        "mlp.gate_up_proj.weight": "gate_up/kernel",
        "mlp.down_proj.weight": "down/kernel",
    },
}
# The published names of the networks, and ours, by rule.
NETWORKS = {"trm": {"L_level": "net"}, "hrm": {"H_level": "high", "L_level": "low"}}


def names(
    layers: Sequence[str],
    networks: Mapping[str, str],
    *,
    learned_positions: bool,
    per_block: int = 2,
    sublayers: Mapping[str, Mapping[str, str]] = SUBLAYERS,
) -> dict[str, str]:
    """Published name without prefix -> our path, in the order of a published file.

    A block of the published code has `per_block` sublayers.
    """
    found = dict(AROUND) | (POSITIONS if learned_positions else {})
    for level, network in networks.items():
        for i, kind in enumerate(layers):
            for name, path in sublayers[kind].items():
                place = f"{level}.layers.{i // per_block}.{name}"
                found[place] = f"params/{network}/{i}_{kind}/{path}"
    return found


def is_transposed(name: str) -> bool:
    """Whether a tensor of this published name is a linear layer."""
    return name.endswith(".weight")


def names_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Published name -> our path for a config of TRM or HRM."""
    model = config["model"]
    return names(
        model["layers"],
        NETWORKS[config["rule"]["name"]],
        learned_positions=model["positions"] == "learned",
    )


def read(
    path: Path,
    config: Mapping[str, Any] | None = None,
    *,
    sizes: Mapping[str, Any] | None = None,
    settings: Path | None = None,
) -> Bundle:
    """The weights of a file of torch.save.

    Without `config` (of ours), the config follows from `settings`, a file like
    all_config.yaml, which is expected beside the weights. `sizes` (of the data) replace
    those that follow from the config and the tensors.

    Raises:
      CheckpointError: the file is damaged, or its tensors are others than expected.
      ConfigError: there is no config, or it has settings without a counterpart here.
    """
    record: dict[str, Any] = {
        "id_map": None,
        "step": int(found[1]) if (found := _STEP.search(path.name)) else 0,
        "weights": "published",
        "provenance": {"file": path.name},
    }
    is_ours = config is not None
    if config is None:
        file = settings or _settings_beside(path)
        values = all_config.read(file)
        config, without = all_config.to_config(values, str(file))
        as_text = json.loads(json.dumps(values, default=str))
        record["provenance"] |= {"all_config": as_text, "no_counterpart": without}
    if config["rule"]["name"] not in NETWORKS:
        raise ConfigError(
            f"{path}: rule.name = {config['rule']['name']!r}; weights in the published "
            f"layout are of {' or '.join(NETWORKS)}"
        )
    tensors = _renamed(torch_file.read(path), names_of(config), str(path))
    if not is_ours and sizes is None:
        config = {**config, "data": with_task(config, tensors, str(path))}
    sizes = dict(sizes or data_sizes(config, tensors))
    return Bundle(str(path), record | {"config": config, "sizes": sizes}, tensors)


def _renamed(
    stored: Mapping[str, Tensor], expected: Mapping[str, str], source: str
) -> dict[str, Tensor]:
    """The tensors by our paths, with our axes. Raises CheckpointError."""
    found = {_bare(name): tensor for name, tensor in stored.items()}
    if len(found) != len(stored):
        raise CheckpointError(
            f"{source}: two of its tensors have the same name but for prefixes"
        )
    for name in dict.fromkeys([*expected, *found]):
        if name not in found or name not in expected:
            problem = "is missing" if name in expected else "is not in such a model"
            raise CheckpointError(f"{source}: the tensor {name} {problem}")
    return {path: _turned(name, found[name]) for name, path in expected.items()}


def _turned(name: str, tensor: Tensor) -> Tensor:
    return tensor.transposed() if is_transposed(name) else tensor


def _bare(name: str) -> str:
    """The name without what compilers, data parallelism and the loss put before it."""
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name


def _settings_beside(path: Path) -> Path:
    places = [path.with_name(SETTINGS), path.with_suffix(".yaml")]
    for place in places:
        if place != path and place.is_file():
            return place
    raise ConfigError(
        f"{places[0]}: not found; the settings of published weights are expected "
        "beside them, or a config of ours that says what they are"
    )


def write(folder: Path, bundle: Bundle) -> list[str]:
    """Write step_N and all_config.yaml; return the settings that these cannot hold.

    Raises ConfigError if the published code has no such model, and SaveError if the
    folder cannot be written.
    """
    config, step = bundle.record["config"], f"step_{bundle.record['step']}"
    rows, columns = bundle.record["sizes"]["grid_shape"]
    seq_len = config["model"]["prefix_len"] + rows * columns
    imported = bundle.record["provenance"].get("all_config")
    settings, without = from_config(config, seq_len, bundle.source, imported)
    tensors = {
        PREFIX + name: _turned(name, bundle.tensors[path])
        for name, path in names_of(config).items()
    }

    def fill(draft: Path) -> None:
        torch_writer.write(draft / step, tensors, step)
        text = yaml.safe_dump(json.loads(json.dumps(settings)))
        write_whole(draft / SETTINGS, text, SaveError)

    write_folder(folder, fill)
    return without
