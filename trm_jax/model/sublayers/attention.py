# SPDX-License-Identifier: Apache-2.0
"""Multi-head attention with rotary positions."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from trm_jax.errors import ConfigError
from trm_jax.model.layers import Linear, rotary_tables, rotate
from trm_jax.model.sublayers.base import Sublayer
from trm_jax.ops.attention import IMPLEMENTATIONS, attend, cudnn_takes
from trm_jax.settings import knob


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionSettings:
    """config.model.attention."""

    num_heads: int = knob(8, "Heads; they share d_model.", low=1, high=2**16)
    positions: str = knob(
        "rope",
        "Positional encoding of queries and keys.",
        choices=("rope", "none"),
    )
    rope_theta: float = knob(10_000.0, "Base of the rotary frequencies.", low=1.0)
    implementation: str = knob(
        "auto",
        "Form of the products; auto: cuDNN's kernels on an NVIDIA GPU where they take "
        "the dtype and the width of the heads, else xla.",
        choices=("auto", *IMPLEMENTATIONS),
    )

    def check(self, d_model: int, dtype: Any) -> None:
        """Raise ConfigError if heads do not fit, or rope_theta is set but not used."""
        rope = self.positions == "rope"
        if d_model % (self.num_heads * (2 if rope else 1)):
            kind = "heads of even width" if rope else "heads"
            raise ConfigError(
                f"model.d_model = {d_model} cannot be divided into "
                f"model.attention.num_heads = {self.num_heads} {kind}"
            )
        if not rope and self.rope_theta != AttentionSettings.rope_theta:
            raise ConfigError(
                f"model.attention.rope_theta = {self.rope_theta}, but nothing reads it "
                "where model.attention.positions = 'none'"
            )
        if self.implementation == "cudnn" and jnp.dtype(dtype) != jnp.bfloat16:
            raise ConfigError(
                f"model.attention.implementation = 'cudnn' with model.dtype = "
                f"{jnp.dtype(dtype).name!r}; expected 'bfloat16'"
            )


class Attention(Sublayer):
    """Attention over all positions, without a mask."""

    section: ClassVar[str] = "attention"
    Settings: ClassVar[type] = AttentionSettings
    looks_ahead: ClassVar[bool] = True
    plain: ClassVar[dict[str, Any]] = {"implementation": "xla"}
    forward_mode: ClassVar[dict[str, Any]] = {"implementation": "xla"}

    @classmethod
    def for_device(cls, settings: Any, kind: str, d_model: int, dtype: Any) -> Any:
        """The settings with the form that "auto" stands for."""
        if settings.implementation != "auto":
            return settings
        head_dim, name = d_model // settings.num_heads, jnp.dtype(dtype).name
        fits = kind.startswith("NVIDIA") and cudnn_takes(head_dim, name)
        form = "cudnn" if fits else "xla"
        return dataclasses.replace(settings, implementation=form)

    @nn.compact
    def __call__(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        c, (b, l, d) = self.settings, hidden.shape
        head_dim = d // c.num_heads
        qkv = Linear(3 * d, name="qkv")(hidden)
        q, k, v = jnp.split(qkv.reshape(b, l, 3 * c.num_heads, head_dim), 3, axis=2)
        if c.positions == "rope":
            tables = rotary_tables(l, head_dim, c.rope_theta)
            q, k = rotate(q, *tables), rotate(k, *tables)
        self.sow("intermediates", "queries_keys", (q, k))
        form = c.implementation if c.implementation != "auto" else "xla"
        out = attend(q, k, v, implementation=form)
        return Linear(d, name="out")(out.reshape(b, l, d))
