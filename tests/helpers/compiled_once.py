# SPDX-License-Identifier: Apache-2.0
"""Runs of one config in one process compile their steps once, not each anew."""

import json

from trm_jax.commands import stop_signal
from trm_jax.evaluation import evaluate
from trm_jax.training import build

_DONE = {}


def share_compilations(monkeypatch):
    def shared(make, key_of):
        def once(*args, **kwargs):
            key = make.__name__, key_of(*args, **kwargs)
            # What the key is made of is kept as well: its id stays its own.
            if key not in _DONE:
                _DONE[key] = make(*args, **kwargs), args
            return _DONE[key][0]

        return once

    def by_text(config, sizes):
        return json.dumps([config, sizes])

    def by_recipe(recipe, mesh, **kwargs):
        return id(recipe), id(mesh), json.dumps(kwargs)

    monkeypatch.setattr(build, "build", shared(build.build, by_text))
    make = shared(evaluate.make_eval_step, by_recipe)
    monkeypatch.setattr(evaluate, "make_eval_step", make)


def run_commands_here(monkeypatch):
    """Let commands run in this process: compiled once, its signals left alone."""
    share_compilations(monkeypatch)
    monkeypatch.setattr(stop_signal, "StopSignal", lambda: lambda: False)
