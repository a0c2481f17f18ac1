# SPDX-License-Identifier: Apache-2.0
"""What the chains of a row draw, and how far a chain is from a fixed point.

Chain 0 of a row is the plain evaluation: it starts where the rule starts and gets no
noise. Axis `k` counts changes of the logits.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from trm_jax.errors import ConfigError
from trm_jax.model.config import ModelConfig
from trm_jax.model.layers import truncated_normal
from trm_jax.rules.draws import folded
from trm_jax.training.supervision import EVAL, row_keys, seed_key, where_rows
from trm_jax.types import Carry, State

WINDOW = 3  # changes of the logits that the residual averages (EqR, eval_fn.py)
# The key of (seed, row, chain, step) is folded with one of these; see supervision.py.
_NOISE, _RESTART, _RESAMPLE = 4, 5, 6


class Chains(NamedTuple):
    """How the chains of a row differ. The default is a plain evaluation."""

    random_starts: bool = False
    noise: float = 0.0  # std of the noise on the latents before every step
    cloud: int = 1  # consecutive rows that are resampled together


PLAIN = Chains()


class Trail(NamedTuple):
    """What a row keeps of its steps; axis `k` counts from the newest change back."""

    logits: Float[Array, "b m v"]  # the last ones
    changes: Float[Array, "b k"]
    doubt: Float[Array, " b"]  # mean sigmoid(-q_halt)


def draw_keys(numbers: Array, seed: int, steps: Int[Array, " b"]) -> Array:
    """The key of each row for its next step, from (seed, number, chain, step)."""
    fold_in = jax.vmap(jax.random.fold_in)
    row, chain = split(numbers)
    return fold_in(fold_in(row_keys(seed_key(seed, EVAL), row), chain), steps)


def split(numbers: Array) -> tuple[Array, Array]:
    """The numbers of rows and chains, `b` each, from row numbers `b` or `b 2`."""
    row, chain = numbers.T if numbers.ndim == 2 else (numbers, jnp.zeros_like(numbers))
    return row, chain


def explored(
    chains: Chains,
    config: ModelConfig,
    carry: Carry,
    keys: Array,
    chain: Int[Array, " b"],
) -> Carry:
    """The carry of a begun step with the draws of its rows; no row is halted after it.

    Random starts are truncated normal with std 1, per row and token (EqR). The noise is
    normal (PTRM, arXiv 2605.19943). `keys` has one key per row and step. Raises
    ConfigError if the state has no latents `b l d`.
    """
    state, others = carry.state, chain > 0
    if chains.random_starts:
        fresh = _drawn(state, config, keys, _RESTART, truncated_normal(1.0))
        state = where_rows(carry.halted & others, fresh, state)
    if chains.noise:
        draws = _drawn(state, config, keys, _NOISE, jax.random.normal)
        moved = jax.tree.map(
            lambda s, n: s if n is s else s + chains.noise * n, state, draws
        )
        state = where_rows(others, moved, state)
    return carry._replace(state=state, halted=jnp.zeros_like(carry.halted))


def _drawn(
    state: State, config: ModelConfig, keys: Array, use: int, draw: Any
) -> State:
    """The state with fresh draws in the place of every latent `b l d`."""
    leaves, tree = jax.tree.flatten(state)
    shape = config.seq_len, config.d_model
    found = [i for i, leaf in enumerate(leaves) if leaf.shape[-2:] == shape]
    if not found:
        names = ", ".join(getattr(state, "_fields", ("?",)))
        raise ConfigError(f"the state of the rule ({names}) has no latents to perturb")
    for i in found:
        like = jax.ShapeDtypeStruct(leaves[i].shape[1:], leaves[i].dtype)
        of_row = partial(draw, shape=like.shape, dtype=like.dtype)
        leaves[i] = jax.vmap(of_row)(folded(folded(keys, use), i))
    return jax.tree.unflatten(tree, leaves)


def resampled(tree: Any, q_halt: Float[Array, " b"], keys: Array, cloud: int) -> Any:
    """Rows drawn anew within each cloud, in proportion to sigmoid(q_halt).

    The draw is systematic: a row of weight w has floor(K w) or ceil(K w) copies in a
    cloud of K rows (guided exploration, arXiv 2605.25230). A cloud draws with the key
    of its first row.
    """
    odds = jax.nn.sigmoid(q_halt.reshape(-1, cloud))
    ends = jnp.cumsum(odds / odds.sum(1, keepdims=True), axis=1)
    draw = jax.vmap(lambda key: jax.random.uniform(key, (), q_halt.dtype))
    offset = draw(folded(keys, _RESAMPLE)[::cloud])
    ticks = (jnp.arange(cloud)[None] + offset[:, None]) / cloud
    inside = jax.vmap(lambda e, t: jnp.searchsorted(e, t, side="right"))(ends, ticks)
    firsts = cloud * jnp.arange(len(odds))
    source = jnp.minimum(inside, cloud - 1) + firsts[:, None]
    return jax.tree.map(lambda leaf: leaf[source.reshape(-1)], tree)


def no_trail(config: ModelConfig, num_rows: int, window: int = WINDOW) -> Trail:
    """The trail of rows before their first step."""
    wide = jnp.promote_types(config.compute_dtype, jnp.float32)
    shape = num_rows, config.num_cells, config.vocab_size
    changes, doubt = jnp.zeros((num_rows, window), wide), jnp.zeros(num_rows, wide)
    return Trail(jnp.zeros(shape, wide), changes, doubt)


def residual(
    trail: Trail, logits: Float[Array, "b m v"], steps: Int[Array, " b"]
) -> tuple[Trail, Float[Array, " b"]]:
    """The next trail, and the score by which EqR picks the smallest.

    A change is the mean over cells of the L2 norm, over the vocabulary, of the change
    of the logits in one step. The score is the mean of the latest changes. `steps`
    counts the steps done on each row; after its first step, the score is infinite.
    """
    change = jnp.sqrt(jnp.square(logits - trail.logits).sum(-1)).mean(-1)
    changes = jnp.concatenate([change[:, None], trail.changes[:, :-1]], axis=1)
    changes = jnp.where(steps[:, None] > 1, changes, 0)
    count = jnp.clip(steps - 1, 0, changes.shape[1])
    score = changes.sum(1) / jnp.maximum(count, 1)
    trail = trail._replace(logits=logits, changes=changes)
    return trail, jnp.where(count > 0, score, jnp.inf)


def doubted(trail: Trail, q_halt: Float[Array, " b"], steps: Int[Array, " b"]) -> Trail:
    """The trail with the mean of sigmoid(-q_halt) over the `steps` of each row.

    This is 1 - mean sigmoid(q_halt), and float32 tells small doubts apart.
    """
    share = (1 / steps).astype(trail.doubt.dtype)
    doubt = (1 - share) * trail.doubt + share * jax.nn.sigmoid(-q_halt)
    return trail._replace(doubt=doubt.astype(trail.doubt.dtype))
