# SPDX-License-Identifier: Apache-2.0
"""Build model, training step and state of a config, for training and evaluation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from trm_jax.errors import ConfigError
from trm_jax.model.config import ModelConfig
from trm_jax.model.model import ReasoningModel
from trm_jax.model.network import free_of_decay, matrix_columns
from trm_jax.rules import make_rule
from trm_jax.training.config import RunSettings, read_run
from trm_jax.training.optim import make_optim
from trm_jax.training.optim.base import Groups, Mask
from trm_jax.training.sharding import make_mesh, path_string, state_shardings
from trm_jax.training.step import (
    Recipe,
    init_train_state,
    jit_train_step,
    make_train_step,
)
from trm_jax.training.supervision import INIT, seed_key
from trm_jax.types import TrainState

# Options of JAX that would change the numbers of a run, and their defaults.
_OPTIONS = {
    "jax_random_seed_offset": 0,
    "jax_default_matmul_precision": None,
    "jax_numpy_dtype_promotion": "standard",
}


class Built(NamedTuple):
    """Everything that a config and the data's sizes determine."""

    run: RunSettings
    recipe: Recipe
    mesh: Mesh
    state_like: TrainState  # shapes, dtypes and shardings
    init: Callable[[], TrainState]
    train_step: Any  # compiled on first call; `.lower` for ahead-of-time use


def build(
    config: Mapping[str, Any],
    sizes: Mapping[str, Any],
    devices: Sequence[Any] | None = None,
) -> Built:
    """Build from a config and the data's sizes, without allocating any array.

    `devices` replaces the visible devices, for instance to compile for a topology that
    is not present. Raises ConfigError for values that do not fit, and if an option of
    JAX would change the numbers.
    """
    for option, default in _OPTIONS.items():
        if (value := getattr(jax.config, option)) != default:
            raise ConfigError(
                f"{option} = {value!r} (in the environment as {option.upper()}) would "
                f"change the numbers of the run; expected {default!r}"
            )
    run = read_run(config)
    batch_sizes = {
        "train.batch_size": run.train.batch_size,
        "eval.batch_size": run.eval.batch_size,
    }
    mesh = make_mesh(
        run.mesh.data, run.mesh.fsdp, batch_sizes=batch_sizes, devices=devices
    )
    recipe = make_recipe(config, sizes, run, mesh.devices.flat[0].device_kind)

    def init() -> TrainState:
        # This fixes the random draws, whatever JAX's settings are.
        with jax.threefry_partitionable(True):
            key = seed_key(run.seed, INIT)
            return init_train_state(recipe, key, run.train.batch_size)

    shapes = jax.eval_shape(init)
    shardings = state_shardings(shapes, mesh)
    like = jax.tree.map(
        lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding),
        shapes,
        shardings,
    )
    step = make_train_step(
        recipe,
        seed=run.seed,
        micro_batches=run.train.micro_batches,
        log_every=run.train.log_every,
        skips=run.train.on_non_finite == "skip",
    )
    compiled = jit_train_step(step, like, mesh, micro_batches=run.train.micro_batches)
    return Built(
        run, recipe, mesh, like, jax.jit(init, out_shardings=shardings), compiled
    )


def make_recipe(
    config: Mapping[str, Any],
    sizes: Mapping[str, Any],
    run: RunSettings,
    device_kind: str = "cpu",
) -> Recipe:
    """Model, rule, halting and optimiser of a config. Raises ConfigError.

    `device_kind` decides on the forms of operators that "auto" stands for.
    """
    wants_x64 = config["model"]["dtype"] == "float64"
    x64: bool = jax.config.read("jax_enable_x64")
    if x64 != wants_x64:
        raise ConfigError(
            f"model.dtype = {config['model']['dtype']!r}, but jax_enable_x64 is "
            f"{x64}; expected {wants_x64}, since it decides "
            "how everything is computed"
        )
    rule = make_rule(config["rule"])
    model_config = ModelConfig.of(
        config["model"], sizes, halt_position=run.halting.halt_position
    )
    alone = config["optim"]["table_only_steps"]
    if alone and not model_config.settings.prefix_len:
        raise ConfigError(
            f"optim.table_only_steps = {alone}, but model.prefix_len = 0 uses no "
            "puzzle table: these updates would change nothing; expected 0"
        )
    if alone >= run.train.steps > 0:
        raise ConfigError(
            f"optim.table_only_steps = {alone} of train.steps = {run.train.steps}: "
            "the network would never be trained; expected fewer"
        )
    model = ReasoningModel(model_config.for_device(device_kind), rule.networks)
    kept = () if model_config.settings.registers_trained else ("registers",)
    groups = Groups(decayed(rule.no_decay), columns(model_config), kept)
    optim = make_optim(config["optim"], run.train.steps, groups)
    return Recipe(model, rule, run.halting, optim, run.train.steps)


def decayed(of_rule: tuple[str, ...]) -> Mask:
    """Which parameters decay: all that neither an operator nor the rule exempts."""

    def mask(params: Any) -> Any:
        def of(path: tuple[Any, ...], _: Any) -> bool:
            name = path_string(path)
            own = name.startswith("rule/") and name.rsplit("/", 1)[-1] in of_rule
            return not own and not free_of_decay(name)

        return jax.tree_util.tree_map_with_path(of, params)

    return mask


def columns(config: ModelConfig) -> Callable[[Any], Any]:
    """The matrices that each parameter consists of, as `matrix_columns` has them."""

    def of_all(params: Any) -> Any:
        def of(path: tuple[Any, ...], leaf: Any) -> tuple[int, ...]:
            return matrix_columns(config, path_string(path), leaf.shape)

        return jax.tree_util.tree_map_with_path(of, params)

    return of_all
