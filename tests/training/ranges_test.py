# SPDX-License-Identifier: Apache-2.0
"""Every setting with twenty wrong values: one clear error, or a value in its range."""

import dataclasses
import math
from typing import get_args

import pytest

from configs import smoke
from data_pipeline.errors import DataError
from tests.helpers.tiny import tiny_sizes
from trm_jax import api
from trm_jax.commands.settings import sections
from trm_jax.errors import ConfigError, error_of
from trm_jax.settings import read
from trm_jax.training.build import build
from trm_jax.training.cost import check_memory

VALUES = (
    *(None, True, "x", "", b"x", [], (), {}, [1], ("x", "y"), (None,), (math.nan, 1)),
    *(math.nan, math.inf, -math.inf, -1, -0.5, 0.5, 10**9, 10**30, "1e-3", object()),
)
DATA = api.pipeline("settings")
SECTIONS = dict(sections())
KEYS = [(p, f.name) for p, s in SECTIONS.items() for f in dataclasses.fields(s)]
SIZES = [  # keys of whole numbers, which 10**9 makes too large
    (place, field.name)
    for place, section in SECTIONS.items()
    for field in dataclasses.fields(section)
    if field.type is int and not place.startswith("data")
]


def read_with(place, name, value):
    """What the section holds for `name`, if it is read with this value."""
    section = SECTIONS[place]
    values = {f.name: f.default for f in dataclasses.fields(section)} | {name: value}
    if place.startswith("data"):
        return getattr(DATA._section(section, values, place), name)
    return getattr(read(section, values, place), name)


@pytest.mark.parametrize(("place", "name"), KEYS)
def test_a_wrong_value_is_refused_in_one_line(place, name):
    (field,) = (f for f in dataclasses.fields(SECTIONS[place]) if f.name == name)
    refused = 0
    for value in VALUES:
        found: list = []
        error = error_of(lambda v=value, to=found: to.append(read_with(place, name, v)))
        if found:
            assert in_range(found[0], field), (value, found)
            continue
        refused += 1
        key = f"{place}.{name}" if place else name
        assert isinstance(error, ConfigError | DataError)
        # A list of the right kind is read as a tuple before others judge its length.
        shown = [value]
        if isinstance(value, list):
            shown += [tuple(value), tuple(map(float, value))]
        begins = tuple(f"{key} = {each!r}; expected " for each in shown)
        assert str(error).startswith(begins)
        assert "\n" not in str(error)
    assert refused >= len(VALUES) - 8


def in_range(value, field):
    kinds = (bool, int, float, str)
    if type(field.default) is tuple:
        inner = get_args(field.type)[0]
        return isinstance(value, tuple) and all(type(v) is inner for v in value)
    if type(value) not in kinds or type(value) is not type(field.default):
        return False
    meta = field.metadata
    if isinstance(value, bool | str):
        return value in meta.get("choices", (value,))
    low, high = meta.get("low", -math.inf), meta.get("high", math.inf)
    return math.isfinite(value) and low <= value <= high


@pytest.mark.slow
@pytest.mark.parametrize(("place", "name"), SIZES)
def test_a_size_that_cannot_fit_is_refused_before_it_is_tried(place, name):
    """10**9 is out of range, does not fit, or counts steps, which take no memory.

    Only as many updates of the table alone would leave none of the whole network.
    """
    config = smoke.get_config().to_dict()
    section = config
    for part in filter(None, place.split(".")):
        section = section[part]
    section[name] = 10**9
    steps = {"steps", "log_every", "eval_every", "checkpoint_every", "max_puzzles"}
    steps |= {"keep_checkpoints", "warmup_steps", "seed"}
    if name in steps:
        check_memory(build(config, tiny_sizes()))
    else:
        with pytest.raises(ConfigError):
            check_memory(build(config, tiny_sizes()))


def test_a_state_larger_than_the_memory_is_refused_with_its_size():
    config = smoke.get_config().to_dict()
    config["model"]["d_model"], config["train"]["batch_size"] = 2**12, 2**20
    with pytest.raises(ConfigError, match=r"state of the run takes \d+.* GiB of a dev"):
        check_memory(build(config, tiny_sizes()))
