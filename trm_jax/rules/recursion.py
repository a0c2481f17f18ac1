# SPDX-License-Identifier: Apache-2.0
"""Latent and deep recursion as in TRM's pseudocode (arXiv 2510.04871, Figure 3).

Pure functions of a network `net_fn(params, h) -> h`: no Flax, tested with toy networks.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
from jax import lax
from jaxtyping import Array, Float

from trm_jax.types import Params

State = Float[Array, "*b l d"]
NetFn = Callable[[Params, State], State]
P = TypeVar("P")

_policies = jax.checkpoint_policies
REMAT_POLICIES = {
    # The products inside attention; layers.matmul and ops.ssd, known by their names.
    "dots": _policies.save_from_both_policies(
        _policies.dots_saveable, _policies.save_only_these_names("matmul", "ssd")
    ),
    "full": _policies.nothing_saveable,
}


def latent_recursion(
    net: Callable[[State], State], x: State, y: State, z: State, *, l_cycles: int
) -> tuple[State, State]:
    """One h-cycle: `l_cycles` latent updates, then one answer update. Gives (y, z)."""
    z, _ = lax.scan(lambda z, _: (net(z + (y + x)), None), z, length=l_cycles)
    return net(y + z), z


def deep_recursion(
    net_fn: NetFn,
    params: P,
    x: State,
    y: State,
    z: State,
    *,
    h_cycles: int,
    l_cycles: int,
    remat: str = "none",
) -> tuple[State, State]:
    """`h_cycles` h-cycles of which only the last carries gradients. Gives (y, z).

    The weights and x of the earlier cycles are stopped too: that changes no gradient
    (the boundary stop is enough) but keeps their residuals out of the trace.
    """
    frozen_net, frozen_x = (
        partial(net_fn, lax.stop_gradient(params)),
        lax.stop_gradient(x),
    )

    def cycle(yz: tuple[State, State], _: None) -> tuple[tuple[State, State], None]:
        return latent_recursion(frozen_net, frozen_x, *yz, l_cycles=l_cycles), None

    yz, _ = lax.scan(cycle, lax.stop_gradient((y, z)), length=h_cycles - 1)
    y, z = lax.stop_gradient(yz)
    if remat != "none":
        net_fn = jax.checkpoint(net_fn, policy=REMAT_POLICIES[remat])
    return latent_recursion(partial(net_fn, params), x, y, z, l_cycles=l_cycles)
