# SPDX-License-Identifier: Apache-2.0
"""Gated feed-forward layers: over the channels, and over the positions (MLP-t)."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from trm_jax.errors import ConfigError
from trm_jax.model.layers import Linear, gated_norm, lecun_init, matmul, weight_dtype
from trm_jax.model.sublayers.base import Sublayer, inner_width, only_on_hopper
from trm_jax.ops.gated import gated_product, kernel_refuses, swiglu
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
    implementation: str = knob(
        "xla",
        "Form of silu(gate) * up: left to the compiler, or fused with its product in a "
        "kernel for H100s and H200s, which has not run on a GPU yet.",
        choices=("xla", "mosaic"),
    )

    def check(self, d_model: int, dtype: Any) -> None:
        """Raise ConfigError if the kernel cannot compute this model."""
        if self.implementation == "xla":
            return
        problem = kernel_refuses(self.width, dtype)  # a width of 0 fits
        if self.inner_norm:
            problem = "mosaic has no kernel for inner_norm"
        if problem:
            raise ConfigError(f"swiglu or token_mlp, implementation: {problem}")


class Gated(Sublayer):
    """What both of them share."""

    Settings: ClassVar[type] = SwiGluSettings
    plain: ClassVar[dict[str, Any]] = {"implementation": "xla"}
    forward_mode: ClassVar[dict[str, Any]] = {"implementation": "xla"}

    @classmethod
    def for_device(cls, settings: Any, kind: str, d_model: int, dtype: Any) -> Any:
        """The settings. Raises ConfigError if the device cannot run the kernel."""
        if settings.implementation == "mosaic":
            only_on_hopper(cls.section, kind)
        return settings

    @property
    def unit(self) -> Callable[..., Array]:
        """What follows the product with the weights of gate and up."""
        return gated_norm if self.settings.inner_norm else swiglu


class SwiGlu(Gated):
    """Gated feed-forward over the channels (arXiv 2002.05202).

    Its gated-norm form is that of jvdillon/sic.
    """

    section: ClassVar[str] = "swiglu"

    @nn.compact
    def __call__(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        d = hidden.shape[-1]
        width = inner_width(self.settings.width, self.settings.expansion, d)
        fused = self.settings.implementation == "mosaic"
        product = gated_product if fused else matmul
        inner = Linear(2 * width, product=product, name="gate_up")(hidden)
        if not fused:
            inner = self.unit(inner)
        return Linear(d, name="down")(inner)


class TokenMlp(Gated):
    """TRM's MLP-t: a SwiGLU over the positions, the same for every channel.

    The norm after it also runs over the positions. The product is `f l @ l (b d)`,
    since moving whole rows of d costs far less than transposing `b l d` to `b d l`.
    """

    section: ClassVar[str] = "token_mlp"
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
        up = up.astype(hidden.dtype)
        if self.settings.implementation == "mosaic":
            inner = gated_product(tokens, up, over_rows=True)
        else:
            inner = self.unit(matmul(up, tokens, a_axis=0), axis=0)
        out = matmul(down.astype(hidden.dtype), inner, a_axis=0)
        return out.reshape(l, b, d).swapaxes(0, 1)
