# SPDX-License-Identifier: Apache-2.0
"""ConvSwiGLU: a SwiGLU whose inner channels are mixed with neighbouring positions."""

import dataclasses
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from trm_jax.model.layers import Linear, weight_dtype
from trm_jax.model.sublayers.base import Sublayer, inner_width
from trm_jax.model.sublayers.directions import uniform
from trm_jax.ops.conv import causal_conv, grid_conv
from trm_jax.ops.gated import swiglu
from trm_jax.settings import knob


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvSwiGluSettings:
    """config.model.conv_swiglu."""

    width: int = knob(
        0,
        "Inner width; 0 = expansion * d_model * 2/3, up to a multiple of 256.",
        low=0,
        high=2**20,
    )
    expansion: float = knob(4.0, "Used where width is 0.", low=0.1)
    sides: str = knob(
        "left",
        "Neighbours of a position: before it in the sequence (as published), before "
        "and after it, or around it on the grid.",
        choices=("left", "both", "grid"),
    )
    reach: int = knob(1, "Distance of the farthest neighbour.", low=1, high=2**5)

    def check(self, d_model: int, dtype: Any) -> None:
        """Do nothing: every width fits every model."""


class ConvSwiGlu(Sublayer):
    """W silu(conv(silu(gate) * up)), with a short depthwise convolution (URM).

    With sides = "left" and "both", the convolution runs over the whole sequence: the
    prefix included, and from the end of a row to the start of the next. With "grid", a
    cell has its neighbours in the grid, 3 x 3 cells for a reach of 1. A prefix token
    has no place in the grid: only the centre of the window and the bias act on it.
    """

    section: ClassVar[str] = "conv_swiglu"
    Settings: ClassVar[type] = ConvSwiGluSettings
    no_decay: ClassVar[tuple[str, ...]] = ("conv_bias",)

    @classmethod
    def first_sees(cls, settings: Any, prefix_len: int) -> bool:
        """Whether the first position sees cells, in as many calls as it takes."""
        return settings.sides == "both" or (settings.sides == "grid" and not prefix_len)

    @nn.compact
    def __call__(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        c, d = self.settings, hidden.shape[-1]
        width = inner_width(c.width, c.expansion, d)
        inner = swiglu(Linear(2 * width, name="gate_up")(hidden))
        mixed = nn.silu(self._convolved(inner))
        return Linear(d, name="down")(mixed)

    def _convolved(self, inner: Float[Array, "b l f"]) -> Float[Array, "b l f"]:
        c, (b, _, f), wide = self.settings, inner.shape, weight_dtype(inner.dtype)
        whole = 2 * c.reach + 1
        windows = {"left": (c.reach + 1,), "both": (whole,), "grid": (whole, whole)}
        window = windows[c.sides]
        init = uniform(math.prod(window) ** -0.5)  # PyTorch's default
        kernel = self.param("conv_kernel", init, (*window, f), wide)
        bias = self.param("conv_bias", init, (f,), wide)
        if c.sides != "grid":
            ahead = c.reach if c.sides == "both" else 0
            return causal_conv(inner, kernel, bias, ahead=ahead)
        prefix, cells = jnp.split(inner, [self.prefix_len], axis=1)
        centre = kernel[c.reach, c.reach][None]
        on_grid = grid_conv(cells.reshape(b, *self.grid_shape, f), kernel, bias)
        parts = causal_conv(prefix, centre, bias), on_grid.reshape(cells.shape)
        return jnp.concatenate(parts, axis=1)
