# SPDX-License-Identifier: Apache-2.0
"""Gated feed-forward layers: over the channels, and over the positions (MLP-t)."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from trm_jax.model.layers import Linear, lecun_init, matmul, swiglu, weight_dtype
from trm_jax.model.sublayers.base import Sublayer, inner_width
from trm_jax.settings import knob


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwiGluSettings:
    """config.model.swiglu and config.model.token_mlp."""

    width: int = knob(
        0,
        "Inner width; 0 = expansion * width * 2/3, up to a multiple of 256.",
        low=0,
        high=2**20,
    )
    expansion: float = knob(4.0, "Used where width is 0.", low=0.1)
    inner_norm: bool = knob(
        False,
        "The gated-norm unit, sigmoid(gate) * rms(gate * up) in place of silu(gate) * "
        "up; the norm runs over the inner width.",
    )

    def check(self, d_model: int, dtype: Any) -> None:
        """Do nothing: every width fits every model."""


class SwiGlu(Sublayer):
    """Gated feed-forward over the channels (arXiv 2002.05202).

    Its gated-norm form is that of jvdillon/sic.
    """

    section: ClassVar[str] = "swiglu"
    Settings: ClassVar[type] = SwiGluSettings

    @nn.compact
    def __call__(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        d = hidden.shape[-1]
        width = inner_width(self.settings.width, self.settings.expansion, d)
        gate_up = Linear(2 * width, name="gate_up")(hidden)
        inner = swiglu(gate_up, inner_norm=self.settings.inner_norm)
        return Linear(d, name="down")(inner)


class TokenMlp(Sublayer):
    """TRM's MLP-t: a SwiGLU over the positions, the same for every channel.

    The norm after it also runs over the positions. The product is `f l @ l (b d)`,
    since moving whole rows of d costs far less than transposing `b l d` to `b d l`.
    """

    section: ClassVar[str] = "token_mlp"
    Settings: ClassVar[type] = SwiGluSettings
    norm_axis: ClassVar[int] = 1
    looks_ahead: ClassVar[bool] = True

    @classmethod
    def columns(
        cls, settings: Any, name: str, shape: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Both weights are matrices."""
        if name == "down":
            return shape[1:]
        return super().columns(settings, name, shape)

    @nn.compact
    def __call__(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        b, l, d = hidden.shape
        width = inner_width(self.settings.width, self.settings.expansion, l)
        dtype = weight_dtype(hidden.dtype)
        up = self.param("gate_up", lecun_init, (l, 2 * width), dtype)
        down = self.param("down", lecun_init, (width, l), dtype)
        tokens = hidden.swapaxes(0, 1).reshape(l, b * d)
        gate_up = matmul(up.astype(hidden.dtype), tokens, a_axis=0)
        inner = swiglu(gate_up, axis=0, inner_norm=self.settings.inner_norm)
        out = matmul(down.astype(hidden.dtype), inner, a_axis=0)
        return out.reshape(l, b, d).swapaxes(0, 1)
