# SPDX-License-Identifier: Apache-2.0
"""What happens inside the operators of a network for a given input.

While a collection of intermediate values is open, attention sows its queries and keys,
Mamba layers sow the arguments of their scans, and the network sows what each sublayer
leaves. Everywhere else the collection is closed, and sowing adds nothing to a program.
Computations have the precision of `Model.cycle`: float32 for a bfloat16 model.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import io_callback
from jaxtyping import Array

from trm_jax.errors import ConfigError
from trm_jax.inspect.cycle import Loaded, States
from trm_jax.inspect.loop_measures import probabilities
from trm_jax.model.model import ReasoningModel
from trm_jax.model.network import Network
from trm_jax.model.sublayers import operator
from trm_jax.model.sublayers.directions import DIRECTIONS, paths
from trm_jax.ops.selective_scan import selective_scan
from trm_jax.ops.ssd import ssd
from trm_jax.types import Params

Scan = tuple[Array, Array, Array, Array, Array]  # x, dt, A, B, C in the scan's order


@dataclasses.dataclass(frozen=True)
class AttentionInside:
    """What one attention layer attends to."""

    layer: str  # such as "0_attention"
    maps: np.ndarray  # `b h l l`: the weight of each key (last) for each query; sum 1


@dataclasses.dataclass(frozen=True)
class ScanInside:
    """The state of one scan of a Mamba layer, by position in the sequence.

    `u` counts the heads of Mamba-2 or the channels of Mamba-1.
    """

    layer: str  # such as "0_mamba2_both"
    direction: str  # forward, backward, column or column_backward
    norms: np.ndarray  # `b l u`: root mean square of the state once it read the token
    decays: np.ndarray  # `b l u`, Mamba-1 `b l u n`: the share kept of the state before


class Inside(NamedTuple):
    """What happens in one call of a network."""

    attention: list[AttentionInside]
    scans: list[ScanInside]
    hidden: dict[str, np.ndarray]  # `b l d` after each sublayer, by its name
    output: np.ndarray  # `b l d`


def network_calls(
    model: Loaded, y: States, z: States, x: States
) -> list[tuple[str, np.ndarray]]:
    """The network and its input `b l d` in every network call of one cycle, in order.

    y, z and x are `b l d`. Raises ConfigError if the rule has no y and z: then give
    `inside` the input that the rule computes from its state.
    """
    found: list[tuple[str, np.ndarray]] = []

    def noted(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, Network) and context.method_name == "__call__":
            keep = partial(_keep, found, context.module.name)
            io_callback(keep, None, args[0], ordered=True)
        return call(*args, **kwargs)

    with nn.intercept_methods(noted):
        jax.block_until_ready(model.cycle(y, z, x))
    jax.effects_barrier()
    return found


def _keep(found: list[Any], name: Any, hidden: Any) -> None:
    found.append((name, np.asarray(hidden)))


def inside(model: Loaded, hidden: States, network: str = "") -> Inside:
    """What happens in one call of a network with the input `hidden`, `b l d`.

    `network` is needed only if the model has several. Raises ConfigError for a network
    that it does not have.
    """
    bound = model.bound()
    names = bound.module.networks
    if not network and len(names) == 1:
        (network,) = names
    if network not in names:
        raise ConfigError(f"network {network!r}; expected one of {', '.join(names)}")
    params = {k: v for k, v in bound.params.items() if k != "rule"}
    output, found = _collected(bound.module, network, params, jnp.asarray(hidden))
    layers = [f"{i}_{name}" for i, name in enumerate(bound.config.layers)]
    attention, scans = [], []
    for layer, name in zip(layers, bound.config.layers, strict=True):
        of_layer = found.get(layer, {})
        for q, k in of_layer.get("queries_keys", ()):
            attention.append(AttentionInside(layer, attention_maps(q, k)))
        for i, scan in enumerate(of_layer.get("scans", ())):
            direction = getattr(operator(name), "direction", "forward")
            path = paths(direction, bound.config.grid_shape, bound.config.prefix_len)[i]
            place = np.asarray(path.back(np.arange(hidden.shape[1])[None]))[0]
            scans.append(_scan_inside(layer, DIRECTIONS[direction][i], place, scan))
    after = [np.asarray(each) for each in found["hidden"]]
    hidden_by_layer = dict(zip(layers, after, strict=True))
    return Inside(attention, scans, hidden_by_layer, np.asarray(output))


@partial(jax.jit, static_argnums=(0, 1))
def _collected(
    module: ReasoningModel, network: str, params: Params, hidden: Array
) -> tuple[Array, Any]:
    """The output of a network, and what it sows."""
    apply = cast(Any, module.apply)
    output, sown = apply(
        {"params": params},
        hidden,
        network,
        method="refine",
        mutable=["intermediates"],
    )
    return output, sown["intermediates"][network]


def attention_maps(q: Any, k: Any) -> np.ndarray:
    """The float64 softmax(q k / sqrt(width)), `b h l l`, of q and k `b l h k`."""
    wide_q, wide_k = (np.asarray(v, np.float64) for v in (q, k))
    scores = np.einsum("blhk,bmhk->bhlm", wide_q, wide_k) / math.sqrt(q.shape[-1])
    return probabilities(scores, loss="softmax")


def decays(scan: Scan) -> np.ndarray:
    """exp(dt A) of a scan, in its order and in float64: `b l h`, or `b l d n`."""
    dt, A = (np.asarray(v, np.float64) for v in scan[1:3])
    return np.exp(dt * A) if A.ndim == 1 else np.exp(dt[..., None] * A)


def _whole(state: Array) -> Array:
    return state


def _size(state: Array) -> Array:
    """The root mean square of the state of every head or channel."""
    return jnp.sqrt((state**2).mean(tuple(range(2, state.ndim))))


@partial(jax.jit, static_argnums=1)
def states(scan: Scan, read: Callable[[Array], Array] = _whole) -> Array:
    """`read(state)` of a scan after every token, in the order of the scan: `b l ...`.

    The state is `b h p n` (Mamba-2) or `b d n` (Mamba-1). The scan runs token by token.
    """
    x, dt, A, B, C = scan
    step: Any = ssd if A.ndim == 1 else selective_scan
    wide = jnp.promote_types(x.dtype, jnp.float32)
    first = jnp.zeros((x.shape[0], *x.shape[2:], B.shape[-1]), wide)

    def token(state: Array, now: tuple[Array, ...]) -> tuple[Array, Array]:
        x, dt, B, C = (v[:, None] for v in now)
        _, state = step(
            *(x, dt, A, B, C), initial_state=state, implementation="recurrent"
        )
        return state, read(state)

    _, found = lax.scan(token, first, tuple(v.swapaxes(0, 1) for v in (x, dt, B, C)))
    return found.swapaxes(0, 1)


def _scan_inside(
    layer: str, direction: str, place: np.ndarray, scan: Scan
) -> ScanInside:
    """`place` says when the scan reads each position."""
    norms = np.asarray(states(scan, _size), np.float64)
    return ScanInside(layer, direction, norms[:, place], decays(scan)[:, place])
