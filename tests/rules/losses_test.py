# SPDX-License-Identifier: Apache-2.0
import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.golden_trm import GOLDEN
from trm_jax.errors import ConfigError
from trm_jax.rules import RULES, make_rule
from trm_jax.rules.losses import LOSSES, cross_entropy, log_stablemax, row_losses
from trm_jax.rules.trm import TRM
from trm_jax.settings import defaults
from trm_jax.types import Batch

golden = np.load(GOLDEN / "losses.npz")


@pytest.mark.parametrize("loss", LOSSES)
def test_cross_entropy_matches_the_published_one(loss):
    labels = golden["labels"]
    found = cross_entropy(
        jnp.asarray(golden["logits"]), jnp.asarray(np.maximum(labels, 0)), loss=loss
    )
    labelled = labels != -100
    expected = golden[loss]
    np.testing.assert_allclose(
        found[labelled], expected[labelled], rtol=2e-6, atol=2e-6
    )


def test_log_stablemax_matches_float64():
    found = log_stablemax(jnp.asarray(golden["logits"]))
    np.testing.assert_allclose(found, golden["log_stablemax"], rtol=2e-6, atol=2e-6)


def test_stablemax_follows_its_definition_in_float64():
    v = np.concatenate([np.linspace(-50, 50, 401), [0.0, 1.0, -1.0, 1e-30]])
    s = np.where(v >= 0, v + 1, 1 / (1 - np.minimum(v, 0)))
    with jax.enable_x64(True):
        found = log_stablemax(jnp.asarray(v))
    np.testing.assert_allclose(found, np.log(s / s.sum()), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_stablemax_gradient_is_finite_and_right_where_branches_meet(dtype):
    logits = jnp.array([1.0, 0.0, -0.0, -1.0, 2.0, 1e4, -1e4], dtype)

    def loss(logits):
        return cross_entropy(logits, jnp.array(4), loss="stablemax")

    grad = jax.grad(loss)(logits)
    assert jnp.isfinite(grad).all()
    # d(-log(s_4 / sum s)) / dv_i = s'_i / sum s - [i = 4] s'_i / s_i
    v = np.asarray(logits, np.float64)
    s = np.where(v >= 0, v + 1, 1 / (1 - np.minimum(v, 0)))
    slope = np.where(v >= 0, 1, 1 / (1 - np.minimum(v, 0)) ** 2)
    expected = slope / s.sum() - (np.arange(7) == 4) * slope / s
    tolerance = {"float32": 1e-6, "bfloat16": 1e-2}[dtype]
    np.testing.assert_allclose(np.asarray(grad, np.float64), expected, rtol=tolerance)


@pytest.mark.parametrize("loss", LOSSES)
def test_label_smoothing_gives_all_tokens_a_share(loss):
    logits, labels = jnp.asarray(golden["logits"]), jnp.asarray(golden["labels"])
    smooth = partial(cross_entropy, logits, loss=loss, label_smoothing=0.2)
    plain = partial(cross_entropy, logits, loss=loss)
    labels = jnp.maximum(labels, 0)
    tokens = range(logits.shape[-1])
    everywhere = jnp.stack([plain(jnp.full_like(labels, v)) for v in tokens]).mean(0)
    expected = 0.8 * plain(labels) + 0.2 * everywhere
    np.testing.assert_allclose(smooth(labels), expected, rtol=1e-5)


def test_an_unknown_loss_is_refused():
    section = {"name": "trm", "trm": defaults(TRM) | {"cell_loss": "hinge"}}
    with pytest.raises(
        ConfigError, match="rule.trm.cell_loss = 'hinge'; .* stablemax, softmax"
    ):
        make_rule(section)


def test_a_rule_that_lacks_a_method_is_refused(monkeypatch):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Half:
        networks, metrics, no_decay = ("net",), (), ()
        module = constants = start = step = answer = None

    monkeypatch.setitem(RULES, "half", Half)
    with pytest.raises(ConfigError, match="'half': Half lacks infer, loss; see"):
        make_rule({"name": "half", "half": {}})


def make_rows(mask):
    """Random (logits, q_halt), and rows with this label mask."""
    rng = np.random.default_rng(0)
    b, m = mask.shape
    logits = jnp.asarray(rng.normal(size=(b, m, 5)).astype(np.float32))
    q_halt = jnp.asarray(rng.normal(size=b).astype(np.float32))
    labels = jnp.asarray(rng.integers(0, 5, (b, m)).astype(np.int32))
    ids, weight = jnp.zeros(b, jnp.int32), jnp.ones(b)
    return (logits, q_halt), Batch(labels, labels, jnp.asarray(mask), ids, weight)


compiled = jax.jit(
    row_losses, static_argnames=("loss", "label_smoothing", "halt_weight")
)


def losses(output, batch, **changes):
    choices = {"loss": "stablemax", "label_smoothing": 0.0, "halt_weight": 0.5}
    return compiled(*output, batch, **choices | changes)


def test_a_row_without_labels_has_no_cell_loss_and_no_nan():
    output, batch = make_rows(np.array([[True] * 4, [False] * 4]))

    def total(output):
        return losses(output, batch).total.sum()

    rows = losses(output, batch)
    assert rows.cell_loss[1] == 0
    assert rows.cell_loss[0] > 0
    assert rows.all_right[1]
    assert not rows.has_labels[1]
    grads = jax.device_get(jax.jit(jax.grad(total))(output))
    assert all(np.isfinite(g).all() for g in grads)
    np.testing.assert_array_equal(grads[0][1], 0)


def test_cells_without_a_label_count_for_nothing():
    output, batch = make_rows(np.array([[True, True, False, False]]))
    changed = batch._replace(labels=batch.labels.at[0, 2:].add(1) % 5)
    a, b = (losses(output, x, loss="softmax") for x in (batch, changed))
    np.testing.assert_array_equal(a.total, b.total)
    np.testing.assert_array_equal(a.cells_right, b.cells_right)


def test_the_total_weighs_a_halting_loss_whose_target_is_that_all_is_right():
    output, batch = make_rows(np.array([[True] * 4] * 2))
    right = batch._replace(labels=output[0].argmax(-1).astype(jnp.int32))
    for rows, is_right in ((batch, 0.0), (right, 1.0)):
        found = losses(output, rows, halt_weight=0.3)
        np.testing.assert_array_equal(found.all_right, is_right)
        q = np.asarray(output[1], np.float64)
        expected = np.log1p(np.exp(q)) - is_right * q
        np.testing.assert_allclose(found.halt_loss, expected, rtol=1e-5)
        total = found.cell_loss + 0.3 * found.halt_loss
        np.testing.assert_allclose(found.total, total, rtol=1e-6)
