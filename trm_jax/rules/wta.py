# SPDX-License-Identifier: Apache-2.0
"""Winner takes all: several chains think about a puzzle, and the best one learns.

Each row holds K chains of any other rule, which differ in their starts. A training step
runs all of them; the winner is the chain with the smallest cell loss, and only its loss
counts. Then all chains continue from the winner's y, each with its own z; with one
latent, each continues from its own. Of two chains whose z have become alike, the worse
is expunged. An evaluation runs the first chain alone, at the cost of the inner rule.
(jvdillon/sic, code/experiment.py; there chains of solved puzzles serve other rows; here
a row owns its chains.)
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from trm_jax.errors import ConfigError
from trm_jax.model.config import ModelConfig
from trm_jax.model.model import BoundModel
from trm_jax.rules.base import Clock, Keep, Rule, answer_latent
from trm_jax.rules.chains import aligned, up_projection, without_alike
from trm_jax.rules.draws import folded
from trm_jax.rules.losses import RowLosses
from trm_jax.rules.recursion import ended, frozen
from trm_jax.settings import knob
from trm_jax.types import Batch, Params, StepOutput


class Chains(NamedTuple):
    """The inner rule's states, one per chain, and which chains are in use."""

    of_chain: Any  # the inner state, every leaf with the axes (b, k, ...)
    live: Bool[Array, "b k"]

    @property
    def y(self) -> Float[Array, "b l d"]:
        """The answer of the first chain."""
        return answer_latent(self.of_chain)[:, 0]


class ChainOutputs(NamedTuple):
    """The outputs of all chains, as rows b k, and the chain that won in each row."""

    of_chains: Any
    winner: Int[Array, " b"]
    live: Bool[Array, "b k"]
    kept: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class WTA:
    """The settings of `WinnerTakeAll`."""

    inner: str = knob("trm", "The rule of the chains: the name of another section.")
    chains: int = knob(4, "Chains per puzzle in training, K.", low=1, high=64)
    copied: str = knob(
        "auto",
        "Latents of the winner that all chains take over after a step; auto = y, or "
        "none if the rule has one latent, which must keep its chains apart.",
        choices=("auto", "y", "z", "both", "none"),
    )
    expunge_above: float = knob(
        0.95,
        "Cosine between the z of two chains above which the worse one is given up; "
        "1 = never.",
        low=-1.0,
        high=1.0,
    )
    align_starts: int = knob(
        0,
        "Singular vectors of the first SwiGLU of which the starts of z, in every "
        "chain, hold as much as in the first; 0 = drawn freely.",
        low=0,
        high=2**16,
    )

    def around(self, inner: Rule) -> "WinnerTakeAll":
        """This rule with chains of the given rule."""
        return WinnerTakeAll(self, inner)


@dataclasses.dataclass(frozen=True)
class WinnerTakeAll:
    """K chains of the rule `inner` per row; the winner's loss trains the network."""

    settings: WTA
    inner: Rule

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks of the inner rule."""
        return self.inner.networks

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those of the inner rule, the chains in use, and how often the first wins."""
        return (*self.inner.metrics, "live_chains", "first_wins")

    @property
    def no_decay(self) -> tuple[str, ...]:
        """As the inner rule says."""
        return self.inner.no_decay

    def module(self, config: ModelConfig) -> Any:
        """The inner rule's own module."""
        return self.inner.module(config)

    def constants(self, key: Array, config: ModelConfig, params: Params) -> Params:
        """The inner rule's constants, once per chain: the starts of z differ."""
        keys = jax.random.split(key, self.settings.chains)
        drawn = [self.inner.constants(each, config, params) for each in keys]
        whole = jax.tree.map(lambda *each: jnp.stack(each), *drawn)
        if rank := self.settings.align_starts:
            kernel = up_projection(whole, params, self.networks)
            whole["z"] = aligned(whole["z"], kernel, rank)
        return whole

    def start(
        self, model: BoundModel, rows: Batch, keys: Array, *, training: bool
    ) -> Chains:
        """The start of every chain, one in evaluation; a y that is copied is shared."""
        count = self.settings.chains if training else 1

        def of(k: int) -> Any:
            constants = jax.tree.map(lambda leaf: leaf[k], model.constants)
            own = dataclasses.replace(model, constants=constants)
            return self.inner.start(own, rows, folded(keys, k), training=training)

        each = [of(k) for k in range(count)]
        if "y" in self._copied(each[0]):
            each = [state._replace(y=each[0].y) for state in each]
        states = jax.tree.map(lambda *leaves: jnp.stack(leaves, 1), *each)
        return Chains(states, jnp.ones((len(rows.weight), count), bool))

    def step(
        self,
        model: BoundModel,
        rows: Batch,
        state: Chains,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[Chains, ChainOutputs]:
        """A step of every chain; the rest goes on from the best."""
        after, outputs = self._run("step", model, rows, state, keys, clock, keep)
        count = state.live.shape[1]
        of_chains = self.inner.loss(outputs, _repeated(rows, count))
        losses = frozen(of_chains.cell_loss).reshape(-1, count)
        losses = jnp.where(state.live, losses, jnp.inf)
        winner = losses.argmin(1)
        for name in self._copied(after):
            best = _pick(getattr(after, name), winner)[:, None]
            same = jnp.broadcast_to(best, getattr(after, name).shape)
            after = after._replace(**{name: same})
        live, most = state.live, self.settings.expunge_above
        if most < 1 and count > 1:
            own = after.z if "z" in after._fields else after[0]
            live = without_alike(frozen(own), live, losses, most)
        last = Chains(after, live)
        kept = ended(outputs.kept, keep, last)
        outputs = outputs._replace(kept=None)
        return last, ChainOutputs(outputs, winner, state.live, kept)

    def infer(
        self,
        model: BoundModel,
        rows: Batch,
        state: Chains,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[Chains, ChainOutputs]:
        """A step of the only chain."""
        after, outputs = self._run("infer", model, rows, state, keys, clock, keep)
        first = jnp.zeros(len(rows.weight), jnp.int32)
        of_chains = outputs._replace(kept=None)
        found = ChainOutputs(of_chains, first, state.live, outputs.kept)
        return Chains(after, state.live), found

    def loss(self, outputs: ChainOutputs, rows: Batch) -> RowLosses:
        """The losses and scores of the winner."""
        count = outputs.live.shape[1]
        losses = self.inner.loss(outputs.of_chains, _repeated(rows, count))
        best = _pick(_split(losses, count), outputs.winner)
        own = {"live_chains": outputs.live.sum(1), "first_wins": outputs.winner == 0}
        own = {name: value.astype(best.total.dtype) for name, value in own.items()}
        return best._replace(extra=best.extra | own)

    def answer(self, outputs: ChainOutputs) -> StepOutput:
        """The winner's answer."""
        answers = self.inner.answer(outputs.of_chains)
        return _pick(_split(answers, outputs.live.shape[1]), outputs.winner)

    def calls(self) -> tuple[str, ...]:
        """As in a step of one chain."""
        return self.inner.calls()  # type: ignore[attr-defined]

    def _run(
        self,
        method: str,
        model: BoundModel,
        rows: Batch,
        state: Chains,
        keys: Array,
        clock: Clock,
        keep: Keep | None,
    ) -> tuple[Any, Any]:
        """A step of all chains, as rows: states (b, k, ...), outputs (b k, ...)."""
        count = state.live.shape[1]
        model = dataclasses.replace(model, vectors=_repeated(model.vectors, count))
        clock = clock._replace(step=_repeated(clock.step, count))
        keys = jnp.stack([folded(keys, k) for k in range(count)], 1).reshape(-1)

        def kept(inner: Any) -> Any:
            return keep(Chains(_split(inner, count), state.live)) if keep else None

        flat = jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), state.of_chain)
        args = model, _repeated(rows, count), flat, keys, clock, kept if keep else None
        after, outputs = getattr(self.inner, method)(*args)
        return _split(after, count), outputs

    def _copied(self, inner: Any) -> tuple[str, ...]:
        """The names of the latents that all chains take over. Raises ConfigError."""
        copied, has_two = self.settings.copied, {"y", "z"} <= {*inner._fields}
        if copied == "none" or (copied == "auto" and not has_two):
            return ()
        if not has_two:
            raise ConfigError(
                f"rule.wta.copied = {copied}; expected auto or none, since the rule "
                f"{self.settings.inner} has one latent, which keeps its chains apart"
            )
        return {"auto": ("y",), "both": ("y", "z")}.get(copied, (copied,))


def _repeated(rows: Any, count: int) -> Any:
    """Every row `count` times in a row."""
    return jax.tree.map(lambda v: jnp.repeat(v, count, axis=0), rows)


def _split(rows: Any, count: int) -> Any:
    """(b k, ...) -> (b, k, ...)."""
    return jax.tree.map(lambda v: v.reshape(-1, count, *v.shape[1:]), rows)


def _pick(rows: Any, chain: Int[Array, " b"]) -> Any:
    """(b, k, ...) -> (b, ...): the given chain of every row."""
    return jax.tree.map(lambda v: v[jnp.arange(len(chain)), chain], rows)
