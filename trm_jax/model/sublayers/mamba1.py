# SPDX-License-Identifier: Apache-2.0
"""The Mamba-1 mixer (arXiv 2312.00752, figure 3), in all scan directions."""

import dataclasses
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from trm_jax.errors import ConfigError
from trm_jax.model.layers import Linear, lecun_init, truncated_normal, weight_dtype
from trm_jax.model.sublayers.base import Sublayer
from trm_jax.model.sublayers.directions import (
    Path,
    log_uniform_dt,
    paths,
    uniform,
    uniform_fan_in,
)
from trm_jax.ops.conv import causal_conv
from trm_jax.ops.selective_scan import IMPLEMENTATIONS, selective_scan
from trm_jax.settings import knob
from trm_jax.types import SSD, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mamba1Settings:
    """config.model.mamba1."""

    expand: int = knob(2, "Inner width / d_model.", low=1, high=2**6)
    d_state: int = knob(16, "State dimensions per channel.", low=1, high=2**12)
    dt_rank: int = knob(
        0,
        "Width from which step sizes follow; 0 = d_model / 16.",
        low=0,
        high=2**16,
    )
    d_conv: int = knob(4, "Window of the convolution.", low=1, high=2**6)
    conv_bias: bool = knob(True, "Give the convolution a bias.")
    init: str = knob(
        "mamba",
        "Initial weights: those of the paper's code (step sizes log-uniform in 1e-3 to "
        "1e-1), or plain ones (step sizes 0.69, a narrow convolution).",
        choices=("mamba", "plain"),
    )
    chunk_size: int = knob(
        8, "Tokens per chunk of the scan; changes speed and memory.", low=1, high=2**12
    )
    implementation: str = knob(
        "auto",
        "Form of the scan; auto: loop on a CPU, else associative.",
        choices=("auto", *IMPLEMENTATIONS),
    )

    def check(self, d_model: int, dtype: Any) -> None:
        """Raise ConfigError if dt_rank exceeds the inner width."""
        if self.dt_rank > (inner := self.expand * d_model):
            raise ConfigError(
                f"model.mamba1.dt_rank = {self.dt_rank}; expected at most "
                f"model.mamba1.expand * model.d_model = {inner}"
            )


class Mamba1(Sublayer):
    """Mamba-1, left to right."""

    section: ClassVar[str] = "mamba1"
    Settings: ClassVar[type] = Mamba1Settings
    no_decay: ClassVar[tuple[str, ...]] = ("A_log", "D", "dt_bias", "conv_bias")
    plain: ClassVar[dict[str, Any]] = {"implementation": "recurrent"}
    forward_mode: ClassVar[dict[str, Any]] = {"implementation": "recurrent"}
    direction: ClassVar[str] = "forward"

    @classmethod
    def columns(
        cls, settings: Any, name: str, shape: tuple[int, ...]
    ) -> tuple[int, ...]:
        """The projections hold x and gate, and the inputs of dt, B and C."""
        if name == "in_proj/kernel":
            return (shape[1] // 2,) * 2
        if name == "x_proj/kernel":
            n = settings.d_state
            return (shape[1] - 2 * n, n, n)
        return super().columns(settings, name, shape)

    @nn.compact
    def __call__(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        c, d = self.settings, hidden.shape[-1]
        inner, rank = c.expand * d, c.dt_rank or -(-d // 16)
        wide = weight_dtype(hidden.dtype)
        plain = c.init == "plain"
        kernel_init = lecun_init if plain else uniform_fan_in
        projected = Linear(2 * inner, kernel_init, name="in_proj")(hidden)
        x, gate = jnp.split(projected, 2, axis=-1)
        kernel, bias = self._conv_params(inner, wide)
        x_proj = Linear(rank + 2 * c.d_state, kernel_init, name="x_proj")
        dt_proj = Linear(inner, kernel_init, name="dt_proj")
        of_bias = nn.initializers.zeros if plain else log_uniform_dt
        dt_bias = self.param("dt_bias", of_bias, (inner,), wide)
        A_log = self.param("A_log", self._log_rates, (inner, c.d_state), wide)
        D = self.param("D", nn.initializers.ones, (inner,), wide)

        def scan(path: Path) -> Array:
            mixed = nn.silu(causal_conv(path.into(x), kernel, bias))
            low, B, C = jnp.split(x_proj(mixed), [rank, rank + c.d_state], axis=-1)
            delta = nn.softplus(dt_proj(low).astype(wide) + dt_bias[None, None])
            args = mixed, delta, -jnp.exp(A_log), B, C
            self.sow("intermediates", "scans", args)
            chosen = None if c.implementation == "auto" else c.implementation
            y, _ = selective_scan(*args, chunk_size=c.chunk_size, implementation=chosen)
            y = checkpoint_name(y, SSD) + D[None, None] * mixed
            return path.back(y) * nn.silu(gate.astype(y.dtype))

        scans = map(scan, paths(self.direction, self.grid_shape, self.prefix_len))
        out = sum(scans, jnp.zeros((), wide))
        return Linear(d, uniform_fan_in, name="out_proj")(out.astype(hidden.dtype))

    def _conv_params(self, width: int, dtype: Any) -> tuple[Params, Params]:
        c = self.settings
        plain, limit = c.init == "plain", 1 / math.sqrt(c.d_conv)
        init = truncated_normal(1 / math.sqrt(width)) if plain else uniform(limit)
        kernel = self.param("conv_kernel", init, (c.d_conv, width), dtype)
        if not c.conv_bias:
            return kernel, jnp.zeros(width, dtype)
        of_bias = nn.initializers.zeros if plain else uniform(limit)
        return kernel, self.param("conv_bias", of_bias, (width,), dtype)

    def _log_rates(self, _: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """A = -1, -2, ..., -n in every channel."""
        rates = jnp.arange(1, shape[1] + 1, dtype=dtype)
        return jnp.broadcast_to(jnp.log(rates), shape)


class Mamba1Backward(Mamba1):
    """Mamba-1, right to left."""

    direction: ClassVar[str] = "backward"
    looks_ahead: ClassVar[bool] = True


class Mamba1Both(Mamba1):
    """The sum of the outputs of both directions, computed with the same weights."""

    direction: ClassVar[str] = "both"
    looks_ahead: ClassVar[bool] = True


class Mamba1Column(Mamba1):
    """Mamba-1 over the prefix and then the cells column by column."""

    direction: ClassVar[str] = "column"


class Mamba1RowColumn(Mamba1):
    """The sum of the outputs by rows and by columns, with the same weights."""

    direction: ClassVar[str] = "row_column"


class Mamba1Four(Mamba1):
    """The sum by rows and by columns, forward and backward, with the same weights.

    Four directions over a grid follow VMamba (arXiv 2401.10166); the shared weights are
    ours.
    """

    direction: ClassVar[str] = "four"
    looks_ahead: ClassVar[bool] = True
