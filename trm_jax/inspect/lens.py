# SPDX-License-Identifier: Apache-2.0
"""The logit lens: what the heads would answer if a state were the answer state.

The heads were trained on y. What they say of z, or of what a sublayer leaves, is a
reading and no answer of the model.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from trm_jax.beside import pipeline
from trm_jax.errors import ConfigError
from trm_jax.inspect.cycle import Loaded, States
from trm_jax.inspect.loop_measures import entropy
from trm_jax.inspect.operators import inside
from trm_jax.inspect.paths import states_of
from trm_jax.inspect.trace import Trace


@dataclasses.dataclass(frozen=True)
class Lens:
    """What the heads say of k states, one after the other."""

    logits: np.ndarray  # `k m v`
    q_halt: np.ndarray  # `k`, the logit that the answer is right
    agreement: np.ndarray  # `k`: the share of cells decoded as in the final answer
    entropy: np.ndarray  # `k m`, nats
    rank: np.ndarray | None  # `k m`: tokens above the true one; -1 without a label

    @property
    def tokens(self) -> np.ndarray:
        """The decoded answers, `k m`."""
        return self.logits.argmax(-1)


def lens(model: Loaded, trace: Trace, name: str = "z", *, solution: Any = None) -> Lens:
    """The heads' reading of the latent `name` after each record of a trace.

    The final answer is the last one of the trace. `solution` are tokens `m`. Raises
    ConfigError if the trace has no such latent, or if the solution has another length.
    """
    return read(
        model,
        states_of(trace, name),
        answer=trace.tokens[-1],
        loss=trace.loss,
        solution=solution,
    )


def layer_lens(
    model: Loaded,
    hidden: States,
    network: str = "",
    *,
    answer: np.ndarray,
    loss: str,
    solution: Any = None,
) -> dict[str, Lens]:
    """The heads' reading of what each sublayer leaves, by the sublayer's name.

    `hidden` is the input of one network call, `k l d`; `answer`, tokens `m`, is the
    final answer. The other arguments are those of `inside` and `read`.
    """
    found = inside(model, hidden, network).hidden
    of_all: dict[str, Any] = {"answer": answer, "loss": loss, "solution": solution}
    return {name: read(model, after, **of_all) for name, after in found.items()}


def read(
    model: Loaded,
    states: States,
    *,
    answer: np.ndarray,
    loss: str,
    solution: Any = None,
) -> Lens:
    """The heads' reading of states `k l d`.

    `answer` and `solution` are tokens `m`; `loss`, "softmax" or "stablemax", is the
    kind of probabilities that the model was trained for (`trace.loss`). Raises
    ConfigError if the solution has another length than the answer.
    """
    bound = model.bound()
    said, q = bound.predict(jnp.asarray(states, bound.config.weight_dtype))
    logits = np.asarray(said)
    return Lens(
        logits=logits,
        q_halt=np.asarray(q[:, 0]),
        agreement=(logits.argmax(-1) == answer).mean(-1),
        entropy=entropy(logits, loss=loss),
        rank=None if solution is None else ranks(logits, np.asarray(solution)),
    )


def ranks(logits: np.ndarray, solution: np.ndarray) -> np.ndarray:
    """How many tokens have a larger logit than the true one: `k m`; 0 is the best.

    It is -1 in cells without a label, which are PAD in the solution.
    """
    if solution.shape != logits.shape[1:2]:
        expected = logits.shape[1]
        raise ConfigError(f"a solution of {solution.shape}; expected {expected} tokens")
    cells = np.broadcast_to(solution[None, :, None], (*logits.shape[:2], 1))
    true = np.take_along_axis(logits, cells, axis=-1)
    return np.where(solution == pipeline("spec").PAD_ID, -1, (logits > true).sum(-1))
