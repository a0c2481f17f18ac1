# SPDX-License-Identifier: Apache-2.0
"""Models with fresh weights, as `trm_jax.load` gives them after training."""

from configs import default
from data_pipeline import tasks
from tests.helpers import short_run
from trm_jax.runtime.weights import on_one_device
from trm_jax.trained import Model
from trm_jax.training.build import build


def model_of(variant="mlp_t", rule="trm", edit=None, **settings):
    """A model of 4x4 Sudoku; `settings` are those of the rule, `edit` changes more."""
    config = short_run.get_config(variant)
    default.set_rule(config, rule, **settings)
    config.optim.update(ema_decay=0.0, ema_ramp=False)
    if edit:
        edit(config)
    values = on_one_device(config.to_dict())
    built = build(values, tasks.spec_of(values["data"]).sizes)
    state = built.init()
    weights = state.params, state.constants, state.puzzle_table
    return Model(values, built, weights, step=0, id_map=None)
