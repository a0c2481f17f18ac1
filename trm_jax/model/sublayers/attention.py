# SPDX-License-Identifier: Apache-2.0
"""Multi-head attention with rotary positions."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from trm_jax.errors import ConfigError
from trm_jax.model.layers import (
    Linear,
    rms_norm,
    rotary_tables,
    rotary_tables_2d,
    rotate,
)
from trm_jax.model.sublayers.base import Sublayer
from trm_jax.ops.attention import IMPLEMENTATIONS, attend, cudnn_takes
from trm_jax.settings import knob


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionSettings:
    """config.model.attention."""

    num_heads: int = knob(8, "Heads; they share d_model.", low=1, high=2**16)
    positions: str = knob(
        "rope",
        "Positional encoding of queries and keys: rotary by the place in the sequence, "
        "by row and column (rope_2d, or rope_2d_halves, where one half of the channels "
        "turns by the row and the other by the column), or none.",
        choices=("rope", "rope_2d", "rope_2d_halves", "none"),
    )
    rope_theta: float = knob(10_000.0, "Base of the rotary frequencies.", low=1.0)
    inner_norm: bool = knob(
        False, "RMS norm over the joined heads, before the output projection."
    )
    implementation: str = knob(
        "auto",
        "Form of the products; auto: cuDNN's kernels on an NVIDIA GPU where they take "
        "the dtype and the width of the heads, else xla.",
        choices=("auto", *IMPLEMENTATIONS),
    )

    def check(self, d_model: int, dtype: Any) -> None:
        """Raise ConfigError if heads do not fit, or rope_theta is set but not used."""
        rope = self.positions != "none"
        multiple = {"none": 1, "rope": 2}.get(self.positions, 4)
        if d_model % (self.num_heads * multiple):
            kinds = "heads", "heads of even width", "heads of a width divisible by 4"
            kind = kinds[multiple // 2]
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

    @classmethod
    def columns(
        cls, settings: Any, name: str, shape: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Every head's queries, keys and values are a matrix each."""
        if name == "qkv/kernel":
            heads = 3 * settings.num_heads
            return (shape[1] // heads,) * heads
        return super().columns(settings, name, shape)

    @nn.compact
    def __call__(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        c, (b, l, d) = self.settings, hidden.shape
        head_dim = d // c.num_heads
        qkv = Linear(3 * d, name="qkv")(hidden)
        q, k, v = jnp.split(qkv.reshape(b, l, 3 * c.num_heads, head_dim), 3, axis=2)
        if c.positions != "none":
            halves = c.positions == "rope_2d_halves"
            tables = self._tables(l, head_dim, halves)
            q, k = (rotate(v, *tables, halves=halves) for v in (q, k))
        self.sow("intermediates", "queries_keys", (q, k))
        form = c.implementation if c.implementation != "auto" else "xla"
        out = attend(q, k, v, implementation=form).reshape(b, l, d)
        if c.inner_norm:  # jvdillon/sic
            out = rms_norm(out)
        return Linear(d, name="out")(out)

    def _tables(self, length: int, head_dim: int, halves: bool) -> tuple[Array, Array]:
        theta = self.settings.rope_theta
        if self.settings.positions == "rope":
            return rotary_tables(length, head_dim, theta)
        grid = self.grid_shape, self.prefix_len
        return rotary_tables_2d(*grid, head_dim, theta, halves=halves)
