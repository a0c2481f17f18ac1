# SPDX-License-Identifier: Apache-2.0
"""Record how a model thinks about one puzzle: its latents and answers, step by step.

The states at the end of every supervision step come from one compiled program, whatever
is recorded in between, so that recording changes no bit of them. `Model.trace` calls
`record`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jaxtyping import Array

from trm_jax.errors import ConfigError
from trm_jax.evaluation.evaluate import Weights, make_single_step
from trm_jax.inspect.loop_measures import entropy, probabilities
from trm_jax.model.network import Network
from trm_jax.rules.base import answer_latent, innermost
from trm_jax.training.step import Recipe
from trm_jax.training.supervision import bind
from trm_jax.types import Batch, Carry, State

IsValid = Callable[[np.ndarray, np.ndarray], np.ndarray]
EVERY = ("step", "cycle", "call")


@dataclasses.dataclass(frozen=True)
class Trace:
    """The k records of one puzzle, in order. `trace.y` is short for `states["y"]`.

    Between the ends of supervision steps, logits and q are what the heads would say.
    """

    every: str  # "step", "cycle" or "call": what each record follows
    question: np.ndarray  # tokens `m`
    given: np.ndarray  # `m`: which cells are clues; none if the task has no blank
    grid_shape: tuple[int, int]  # rows, columns of the m cells
    steps: np.ndarray  # the supervision step of each record, `k`, from 1
    start: dict[str, np.ndarray]  # the state before the first step, by name: `l d`
    states: dict[str, np.ndarray]  # the state after each record, by name: `k l d`
    logits: np.ndarray  # `k m v`
    q_halt: np.ndarray  # `k`, the logit that the answer is right
    loss: str  # the kind of probabilities that the model was trained for
    valid: np.ndarray | None = None  # `k`: the rules accept the answer; None: unknown

    @property
    def tokens(self) -> np.ndarray:
        """The decoded answer of every record, `k m`."""
        return self.logits.argmax(-1)

    @property
    def entropy(self) -> np.ndarray:
        """The entropy of every cell in nats, `k m`."""
        return entropy(self.logits, loss=self.loss)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the decoded token of every cell, `k m`."""
        return probabilities(self.logits, loss=self.loss).max(-1)

    @property
    def halt_probability(self) -> np.ndarray:
        """The model's estimate that its answer is right, `k`."""
        return 1 / (1 + np.exp(-np.clip(self.q_halt.astype(np.float64), -50, 50)))

    @property
    def ends(self) -> np.ndarray:
        """The number of the last record of every supervision step, `s`."""
        return np.flatnonzero(np.diff(self.steps, append=math.inf))

    def __len__(self) -> int:
        return len(self.steps)

    def __getattr__(self, name: str) -> np.ndarray:
        states = self.__dict__.get("states", {})  # a copy being made has none yet
        if name not in states:
            names = ", ".join(states)
            raise AttributeError(f"the trace has no {name!r}; its states are: {names}")
        return states[name]


def record(
    recipe: Recipe,
    weights: Weights,
    batch: Batch,
    *,
    num_steps: int,
    every: str = "step",
    seed: int = 0,
    is_valid: IsValid | None = None,
) -> list[Trace]:
    """One Trace for each row of a batch, of `num_steps` supervision steps.

    `is_valid` maps questions and answers, `k m` each, to `k`, as the rules say.
    Raises ConfigError for an unknown `every`, or if the rule does not say which state
    a network call updates (its method `calls`).
    """
    if every not in EVERY:
        raise ConfigError(f"every = {every!r}; expected one of {', '.join(EVERY)}")
    if every == "call" and not hasattr(recipe.rule, "calls"):
        kind = type(recipe.rule).__name__
        raise ConfigError(f"every = 'call': the rule {kind} has no method `calls`")
    inner = innermost(recipe.rule)
    if every == "call" and not getattr(inner, "call_is_update", True):
        kind = type(recipe.rule).__name__
        raise ConfigError(
            f"every = 'call': a call of the rule {kind} does not return the new "
            "latent; expected 'step' or 'cycle'"
        )
    numbers = jnp.arange(len(batch.weight))
    first, step, predict, within = _programs(recipe, num_steps, seed, every)
    carry = first(weights, batch, numbers)
    start = on_host(first_chain(carry.state))
    found: list[tuple[int, Any, np.ndarray, np.ndarray]] = []  # step, state, logits, q
    for i in range(1, num_steps + 1):
        before = carry
        carry, answer, _ = step(weights, numbers, carry)
        for state in within(weights, numbers, before):
            found.append((i, *map(on_host, (state, *predict(weights, batch, state)))))
        state = first_chain(carry.state)
        found.append((i, *map(on_host, (state, answer.logits, answer.q_halt))))
    names, config = start._fields, recipe.model.config
    questions = np.asarray(batch.inputs)
    loss = getattr(inner, "cell_loss", "softmax")
    traces = [
        Trace(
            every=every,
            question=questions[row],
            given=(questions[row] != config.blank) & (config.blank >= 0),
            grid_shape=config.grid_shape,
            steps=np.array([one[0] for one in found]),
            start={name: getattr(start, name)[row] for name in names},
            states={
                name: np.stack([getattr(one[1], name)[row] for one in found])
                for name in names
            },
            logits=np.stack([one[2][row] for one in found]),
            q_halt=np.stack([one[3][row] for one in found]),
            loss=loss,
        )
        for row in range(len(numbers))
    ]
    if is_valid is None:
        return traces

    def judged(one: Trace) -> Trace:
        asked = np.broadcast_to(one.question, one.tokens.shape)
        return dataclasses.replace(one, valid=is_valid(asked, one.tokens))

    return [*map(judged, traces)]


@lru_cache(maxsize=8)
def _programs(recipe: Recipe, num_steps: int, seed: int, every: str) -> Any:
    """What gives the first carry, a step, its answer, and the states within it."""
    first, step = make_single_step(recipe, num_steps=num_steps, seed=seed)
    predict = jax.jit(partial(_predict, recipe))
    return first, step, predict, _WITHIN[every](recipe, num_steps, seed)


def _predict(
    recipe: Recipe, weights: Weights, batch: Batch, state: State
) -> tuple[Array, Array]:
    """What the heads say of a state within a step: logits `b m v` and q_halt `b`."""
    params, constants, _ = weights
    no_vectors = jnp.zeros((len(batch.weight), recipe.model.config.puzzle_width))
    model = bind(recipe.rule, recipe.model, params, constants, no_vectors)
    logits, q = model.predict(answer_latent(state))
    return logits, q[:, 0]


def first_chain(state: State) -> State:
    """The inner rule's state in the first chain of each row, if a rule has chains."""
    while hasattr(state, "of_chain"):
        state = jax.tree.map(lambda leaf: leaf[:, 0], state.of_chain)
    return state


Within = Callable[[Weights, Array, Carry], Iterator[State]]


def _nothing(recipe: Recipe, num_steps: int, seed: int) -> Within:
    return lambda weights, numbers, carry: iter(())


def _cycles(recipe: Recipe, num_steps: int, seed: int) -> Within:
    """The states after the cycles of a step, without the last."""
    _, step = make_single_step(
        recipe, num_steps=num_steps, seed=seed, keep=lambda state: state
    )

    def within(weights: Weights, numbers: Array, carry: Carry) -> Iterator[State]:
        *_, kept = step(weights, numbers, carry)
        for i in range(len(jax.tree.leaves(kept)[0]) - 1):
            yield first_chain(jax.tree.map(lambda leaf, i=i: leaf[i], kept))

    return within


def _calls(recipe: Recipe, num_steps: int, seed: int) -> Within:
    """The states after the network calls of a step, without the last.

    A callback brings the output of every call to the host, in order.
    """
    rule: Any = recipe.rule
    _, step = make_single_step(recipe, num_steps=num_steps, seed=seed)
    outputs: list[Any] = []

    def noted(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = call(*args, **kwargs)
        if isinstance(context.module, Network) and context.method_name == "__call__":
            io_callback(outputs.append, None, out, ordered=True)
        return out

    def within(weights: Weights, numbers: Array, carry: Carry) -> Iterator[State]:
        outputs.clear()
        with nn.intercept_methods(noted):  # only while the step is being traced
            jax.block_until_ready(step(weights, numbers, carry))
        jax.effects_barrier()
        state = first_chain(carry.state)
        for name, out in zip(rule.calls()[:-1], outputs[:-1], strict=True):
            state = state._replace(**{name: out})
            yield state

    return within


_WITHIN = {"step": _nothing, "cycle": _cycles, "call": _calls}


def on_host(tree: Any) -> Any:
    """NumPy arrays; bfloat16 becomes float32."""
    narrow = jnp.bfloat16

    def moved(leaf: Any) -> np.ndarray:
        return np.asarray(leaf, np.float32 if leaf.dtype == narrow else leaf.dtype)

    return jax.tree.map(moved, tree)
