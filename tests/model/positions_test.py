# SPDX-License-Identifier: Apache-2.0
"""Positions on the grid: rotary ones by published numbers, and learned ones."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.golden_trm import GOLDEN
from tests.helpers.tiny import tiny_recipe
from trm_jax.errors import ConfigError
from trm_jax.model.layers import rotary_tables_2d, rotate
from trm_jax.model.positions import units, vectors
from trm_jax.model.sublayers.attention import Attention, AttentionSettings

FILE = np.load(GOLDEN / "rope2d.npz")
CASES = sorted({name.partition("/")[0] for name in FILE})


@pytest.mark.parametrize("case", CASES)
def test_published_queries_and_keys_come_out(case):
    halves = case.startswith("eqr")
    q, k = (jnp.asarray(FILE[f"{case}/{name}"]) for name in "qk")
    grid, base = tuple(FILE[f"{case}/grid"].tolist()), float(FILE[f"{case}/base"])
    prefix = 0 if halves else int(FILE[f"{case}/prefix"])
    tables = rotary_tables_2d(grid, prefix, q.shape[-1], base, halves=halves)
    for given, name in ((q, "q"), (k, "k")):
        found = rotate(given, *tables, halves=halves)
        np.testing.assert_allclose(found, FILE[f"{case}/{name}_rotated"], atol=1e-6)
    if not halves:
        for table, name in zip(tables, ("cos", "sin"), strict=True):
            angles = table[..., : q.shape[-1] // 2]
            np.testing.assert_allclose(angles, FILE[f"{case}/{name}"], atol=1e-6)


def test_there_are_cases_of_both_layouts_with_and_without_a_prefix():
    kinds = {case.partition("_")[0] for case in CASES}
    assert kinds == {"sic", "eqr"}
    assert {int(FILE[f"{c}/prefix"]) for c in CASES if c[:3] == "sic"} == {0, 1, 3}


def turned(h, row, column, base, halves):
    """`b l h k` turned by its row and its column, with complex numbers."""
    quarter = h.shape[-1] // 4
    rate = base ** -(np.arange(quarter) / quarter)
    by_row, by_column = (np.exp(1j * np.outer(v, rate)) for v in (row, column))
    parts = np.split(np.float64(h), 4, axis=-1)
    a, b, c, d = parts if halves else (parts[0], parts[2], parts[1], parts[3])
    first, second = (a + 1j * b) * by_row[:, None], (c + 1j * d) * by_column[:, None]
    turned = [first.real, first.imag, second.real, second.imag]
    if not halves:
        turned = [turned[i] for i in (0, 2, 1, 3)]
    return np.concatenate(turned, axis=-1)


@pytest.mark.parametrize("positions", ["rope_2d", "rope_2d_halves"])
def test_attention_turns_queries_and_keys_by_row_and_column(positions):
    (rows, columns), prefix, base = (2, 3), 2, 10.0
    hidden = jax.random.normal(jax.random.key(0), (2, prefix + rows * columns, 16))

    def queries_keys(params=None, **settings):
        made = AttentionSettings(num_heads=2, **settings)
        layer = Attention(made, (rows, columns), prefix)
        params = params or layer.init(jax.random.key(1), hidden)["params"]
        _, sown = layer.apply({"params": params}, hidden, mutable=["intermediates"])
        return params, sown["intermediates"]["queries_keys"][0]

    params, plain = queries_keys(positions="none")
    _, found = queries_keys(params, positions=positions, rope_theta=base)
    row = [0, 0, 2, 2, 2, 3, 3, 3]
    column = [0, 1, 0, 1, 2, 0, 1, 2]
    for given, each in zip(plain, found, strict=True):
        expected = turned(given, row, column, base, positions == "rope_2d_halves")
        np.testing.assert_allclose(each, expected, atol=1e-5)


def test_heads_need_a_width_divisible_by_4():
    settings = AttentionSettings(num_heads=4, positions="rope_2d")
    settings.check(32, jnp.float32)
    with pytest.raises(ConfigError, match=r"d_model = 24 .* 4 heads .* divisible by 4"):
        settings.check(24, jnp.float32)


def test_a_cell_has_the_vectors_of_its_row_column_and_box():
    grid, box, prefix = (6, 6), (2, 3), 2
    of = units("rows_columns_boxes", grid, box, prefix)
    counts = {name: int(unit.max()) + 1 for name, unit in of.items()}
    assert counts == {
        **{"embed_prefix": 2, "embed_rows": 6, "embed_columns": 6, "embed_boxes": 6}
    }
    rng = np.random.default_rng(0)
    tables = {name: rng.normal(size=(count, 5)) for name, count in counts.items()}
    found = vectors({k: jnp.asarray(v) for k, v in tables.items()}, of)
    np.testing.assert_allclose(found[:2], tables["embed_prefix"], rtol=1e-6)
    for r, c in np.ndindex(grid):
        own = tables["embed_rows"][r], tables["embed_columns"][c]
        own += (tables["embed_boxes"][r // 2 * 2 + c // 3],)
        expected = sum(own) / math.sqrt(3)
        np.testing.assert_allclose(found[2 + 6 * r + c], expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("kind", "tables"),
    [
        ("rows_columns", {"rows": 4, "columns": 4, "prefix": 2}),
        ("rows_columns_boxes", {"rows": 4, "columns": 4, "boxes": 4, "prefix": 2}),
    ],
)
def test_the_question_has_learned_positions(kind, tables, dtype):
    layers = {"model.layers": ("swiglu",), "model.dtype": dtype}
    changes = layers | {"sizes.box_shape": (2, 2)}
    model, plain = (
        tiny_recipe(changes | {"model.positions": positions}).model
        for positions in (kind, "none")
    )
    inputs, vector = jnp.arange(16).reshape(1, -1) % 7, jnp.ones((1, 32))
    params = jax.jit(model.init)(jax.random.key(0), inputs, vector)["params"]
    shapes = {k: v.shape for k, v in params.items() if k.startswith("embed_")}
    del shapes["embed_tokens"]
    assert shapes == {f"embed_{name}": (count, 32) for name, count in tables.items()}
    found, without = (
        each.apply({"params": params}, inputs, vector, method="embed")
        for each in (model, plain)
    )
    assert found.dtype == dtype
    places = vectors(params, model.config.position_units)
    expected = math.sqrt(0.5) * (np.float32(without[0]) + math.sqrt(32) * places)
    limit = 0.05 if dtype == "bfloat16" else 1e-5
    np.testing.assert_allclose(np.float32(found[0]), expected, atol=limit)


def test_boxes_are_refused_where_there_are_none():
    changes = {"model.layers": ("swiglu",), "model.positions": "rows_columns_boxes"}
    with pytest.raises(ConfigError, match=r"no boxes; expected 'rows_columns'"):
        tiny_recipe(changes)
