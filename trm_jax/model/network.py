# SPDX-License-Identifier: Apache-2.0
"""The tiny network: a stack of sublayers, each h = rms(h + f(h)) or h + f(rms(h))."""

import flax.linen as nn
from jaxtyping import Array, Float

from trm_jax.model.config import ModelConfig
from trm_jax.model.layers import rms_norm
from trm_jax.model.sublayers import SUBLAYERS, operator


class Network(nn.Module):
    """The stack of `config.layers`, with the norm where `config.norm` places it."""

    config: ModelConfig

    @nn.compact
    def __call__(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        for i, name in enumerate(self.config.layers):
            kind = operator(name)
            sublayer = kind(
                self.config.operator(kind.section),
                self.config.grid_shape,
                self.config.prefix_len,
                name=f"{i}_{name}",
            )
            if self.config.settings.norm == "pre":
                hidden += sublayer(rms_norm(hidden, axis=kind.norm_axis))
            else:
                hidden = rms_norm(hidden + sublayer(hidden), axis=kind.norm_axis)
            self.sow("intermediates", "hidden", hidden)
        return hidden


def halts_blindly(config: ModelConfig) -> bool:
    """Whether the halting logit sees no cell: no layer shows position 0 a later one.

    It then depends on the puzzle id and on the number of steps alone.
    """

    def sees(name: str) -> bool:
        kind = operator(name)
        return kind.first_sees(config.operator(kind.section), config.prefix_len)

    return config.halt_position == "first" and not any(map(sees, config.layers))


def free_of_decay(path: str) -> bool:
    """Whether an operator exempts the parameter at `path` from weight decay.

    An example of a path is `params/net/0_mamba2/A_log`.
    """
    *_, layer, name = path.split("/") if "/" in path else ("", path)
    _, _, operator_name = layer.partition("_")
    kind = SUBLAYERS.get(operator_name)
    return kind is not None and name in kind.no_decay


def matrix_columns(
    config: ModelConfig, path: str, shape: tuple[int, ...]
) -> tuple[int, ...]:
    """`Sublayer.columns` of the parameter at `path`; () if it is in no operator."""
    first, *rest = path.split("/")
    number, _, name = first.partition("_")
    if number.isdigit() and name in SUBLAYERS:
        kind = SUBLAYERS[name]
        return kind.columns(config.operator(kind.section), "/".join(rest), shape)
    return matrix_columns(config, "/".join(rest), shape) if rest else ()
