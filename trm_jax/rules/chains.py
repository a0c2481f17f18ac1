# SPDX-License-Identifier: Apache-2.0
"""How alike the chains of a row are: their starts, and which of them are given up."""

import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Bool, Float

from trm_jax.errors import ConfigError
from trm_jax.types import Params

KEY = "rule.wta.align_starts"


def aligned(
    starts: Float[Array, "k *l d"], matrix: Float[Array, "d f"], rank: int
) -> Float[Array, "k *l d"]:
    """The starts, each with as much energy as the first where `matrix` sees most.

    That is the subspace of the first `rank` singular vectors on the side of d. Inside
    and outside of it each start keeps its direction, and its norm does not change
    (jvdillon/sic, `z_L_init_svd`). Raises ConfigError.
    """
    if rank >= min(matrix.shape):
        raise ConfigError(
            f"{KEY} = {rank}; expected fewer than the {min(matrix.shape)} singular "
            "vectors of the first SwiGLU"
        )
    leading = jnp.linalg.svd(matrix, full_matrices=False)[0][:, :rank]
    inside = starts @ leading @ leading.T
    outside = starts - inside

    def energy(part: Array) -> Array:
        return (part**2).sum(-1, keepdims=True)

    share = energy(inside) / energy(starts)
    rest = 1 - share
    inside *= jnp.sqrt(share[:1] / share)
    outside *= jnp.sqrt(rest[:1] / rest)
    return jnp.concatenate([starts[:1], (inside + outside)[1:]])


def up_projection(
    starts: Params, params: Params, networks: tuple[str, ...]
) -> Float[Array, "d f"]:
    """Gate and up-projection of the first SwiGLU of the first network.

    Raises ConfigError if there is none, or if z has no start that is drawn once.
    """
    weights = flatten_dict(params[networks[0]], sep="/")
    if "z" not in starts:
        raise ConfigError(
            f"{KEY}: no start of z is drawn once, as with starts = 'random' and in "
            f"eqr; expected 0 (--config.{KEY}=0)"
        )
    for path in sorted(weights, key=lambda path: int(path.split("_")[0])):
        if path.endswith("swiglu/gate_up/kernel"):
            kernel: Float[Array, "d f"] = weights[path]
            return kernel
    raise ConfigError(f"{KEY}: the network {networks[0]!r} has no SwiGLU; expected 0")


def without_alike(
    z: Float[Array, "b k l d"],
    live: Bool[Array, "b k"],
    losses: Float[Array, "b k"],
    most: float,
) -> Bool[Array, "b k"]:
    """The live chains, less the worst of those with a cosine above `most` between z."""
    z = z.astype(losses.dtype).reshape(*live.shape, -1)
    z = z / jnp.maximum(jnp.linalg.norm(z, axis=-1, keepdims=True), 1e-12)
    cosine = jnp.einsum("bif,bjf->bij", z, z)
    others = ~jnp.eye(live.shape[1], dtype=bool)[None]
    pairs = live[:, :, None] & live[:, None] & others
    is_alike = (pairs & (cosine > most)).any(2)
    worst = jnp.where(is_alike, losses, -jnp.inf).argmax(1)
    goes = is_alike & (jnp.arange(live.shape[1])[None] == worst[:, None])
    return live & ~goes
