# SPDX-License-Identifier: Apache-2.0
"""Muon (kellerjordan.github.io/posts/muon) for matrices, AdamW for everything else."""

import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from optax import contrib

from trm_jax.errors import ConfigError
from trm_jax.settings import knob
from trm_jax.training.optim.adamw import AdamW
from trm_jax.training.optim.base import Groups, by_update
from trm_jax.training.sharding import gathered, path_string
from trm_jax.types import Params

FILTERS = "conv_kernel"  # depthwise convolutions: vectors side by side, not a matrix


@dataclasses.dataclass(frozen=True, kw_only=True)
class Muon(AdamW):
    """config.optim.muon: the settings of sic (jvdillon/sic); b1, b2, eps are AdamW's.

    The matrices of the operators are orthogonalised, each by itself: heads, gates and
    projections that one parameter holds are apart (`Sublayer.columns`). AdamW updates
    embeddings, heads of the model, vectors, and the rule's own parameters, with the
    learning rate optim.lr and the decay optim.weight_decay. The rates of both follow
    one schedule. The filters of convolutions do not decay.
    """

    lr: float = knob(0.02, "Learning rate of the matrices after the warm-up.", low=0.0)
    weight_decay: float = knob(0.005, "Decoupled decay of the matrices.", low=0.0)
    scope: str = knob(
        "matrices",
        "What is orthogonalised: the matrices of the operators, each by itself, or all "
        "parameters of two axes, whole, with embeddings and heads (as in URM).",
        choices=("matrices", "all"),
    )
    momentum: float = knob(
        0.6, "Decay of the averaged gradient (Nesterov).", low=0.0, below=1.0
    )
    bias_correction: bool = knob(
        False, "Correct the average for its start at zero, as optax does."
    )
    ns_steps: int = knob(3, "Newton-Schulz iterations.", low=1, high=100)
    coefficients: tuple[float, ...] = knob(
        (3.4445, -4.775, 2.0315),
        "Of X, X X^T X and (X X^T)^2 X: three, or three for every iteration.",
    )
    rms: float = knob(
        0.0,
        "Updates are scaled by rms * sqrt(max(in, out)); 0 = by sqrt(max(1, out/in)).",
        low=0.0,
    )

    def __post_init__(self) -> None:
        count = len(self.coefficients)
        if count not in (3, 3 * self.ns_steps):
            raise ConfigError(
                f"optim.muon.coefficients = {self.coefficients}; expected 3 numbers, "
                f"or 3 for each of optim.muon.ns_steps = {self.ns_steps} iterations"
            )

    def build(
        self, lr: float, factor: optax.Schedule, weight_decay: float, groups: Groups
    ) -> optax.GradientTransformation:
        """Muon and AdamW, each with its own lr and wd: p (1 - lr wd) - lr u."""
        groups = self.scoped(groups)

        def labels(params: Params) -> Any:
            def label(_: Any, columns: tuple[int, ...]) -> str:
                return "muon" if columns else "adam"

            return jax.tree.map(label, params, groups.columns(params))

        matrices = optax.chain(
            self.orthogonal(groups),
            optax.add_decayed_weights(self.weight_decay, groups.decayed),
            optax.scale_by_learning_rate(by_update(self.lr, factor)),
        )
        others = super().build(lr, factor, weight_decay, groups)
        return optax.partition({"muon": matrices, "adam": others}, labels)

    def scoped(self, groups: Groups) -> Groups:
        """The groups, whose matrices are those of `scope`; filters do not decay."""

        def decayed(params: Params) -> Any:
            def of(path: tuple[Any, ...], decays: bool) -> bool:
                return decays and not path_string(path).endswith(FILTERS)

            return jax.tree_util.tree_map_with_path(of, groups.decayed(params))

        def columns(params: Params) -> Any:
            def of(param: Any, decays: bool) -> tuple[int, ...]:
                return param.shape[1:] if param.ndim == 2 and decays else ()

            return jax.tree.map(of, params, decayed(params))

        every = columns if self.scope == "all" else groups.columns
        return groups._replace(decayed=decayed, columns=every)

    def orthogonal(self, groups: Groups) -> optax.GradientTransformation:
        """Average, orthogonalise and scale the gradients of parameters of matrices.

        optax keeps its coefficients in the state, and only with bias correction. So it
        orthogonalises here, and the average is our own.
        """
        c = self.coefficients
        rows = tuple(c[i : i + 3] for i in range(0, len(c), 3))
        table: Any = rows if len(rows) > 1 else c
        newton_schulz = contrib.scale_by_muon(
            table,
            self.ns_steps,
            beta=0.0,
            nesterov=False,
            weight_dimension_numbers=_input_and_output,
        )

        def init(params: Params) -> MuonState:
            zeros = jax.tree.map(jnp.zeros_like, params)
            return MuonState(jnp.zeros((), int), zeros)

        def update(
            grads: Params, state: MuonState, params: Params = None
        ) -> tuple[Params, MuonState]:
            del params
            k, b = state.num_updates + 1, self.momentum
            m = optax.tree.update_moment(grads, state.m, b, 1)
            later = 1 - b ** (k + 1) if self.bias_correction else 1.0
            now = 1 - b**k if self.bias_correction else 1.0
            ahead = jax.tree.map(
                lambda m, g: b * (m / later) + (1 - b) * (g / now), m, grads
            )
            columns = groups.columns(grads)
            parts = jax.tree.map(_matrices, ahead, columns)
            parts, _ = newton_schulz.update(parts, newton_schulz.init(parts))
            parts = jax.tree.map(self.sized, parts)
            updates = jax.tree.map(_joined, ahead, parts)
            return updates, MuonState(k, m)

        return optax.GradientTransformation(init, update)

    def sized(self, x: Float[Array, "i n w"]) -> Float[Array, "i n w"]:
        """Orthogonal matrices, scaled by their shape."""
        i, _, o = x.shape
        if self.rms:
            return self.rms * math.sqrt(max(i, o)) * x
        return math.sqrt(max(1, o / i)) * x


class MuonState(NamedTuple):
    """Number of updates, and the averaged gradients of the matrices."""

    num_updates: Int[Array, ""]
    m: Params


def _matrices(
    x: Float[Array, "i o"], columns: tuple[int, ...]
) -> list[Float[Array, "i _ _"]]:
    """The matrices of a parameter; neighbours of equal width w share one array."""
    # Every device orthogonalises all: the rows of a matrix would travel many times.
    x, first, parts = gathered(x), 0, []
    for width, equal in itertools.groupby(columns):
        last = first + width * len(list(equal))
        parts.append(x[:, first:last].reshape(len(x), -1, width))
        first = last
    return parts


def _joined(
    like: Float[Array, "i o"], parts: list[Float[Array, "i _ _"]]
) -> Float[Array, "i o"]:
    """The inverse of `_matrices`."""
    whole = [part.reshape(len(like), -1) for part in parts]
    return gathered(jnp.concatenate(whole, axis=1))


def _input_and_output(parts: Any) -> Any:
    """The axes of every matrix, for optax; the axis between counts the matrices."""
    return jax.tree.map(lambda _: contrib.MuonDimensionNumbers(0, 2), parts)
