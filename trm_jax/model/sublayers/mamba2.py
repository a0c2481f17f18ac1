# SPDX-License-Identifier: Apache-2.0
"""The Mamba-2 mixer (arXiv 2405.21060, section 7), in all scan directions."""

import dataclasses
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from trm_jax.errors import ConfigError
from trm_jax.model.layers import Linear, rms_norm, weight_dtype
from trm_jax.model.sublayers.base import Sublayer, only_on_hopper
from trm_jax.model.sublayers.directions import (
    Path,
    log_uniform_dt,
    paths,
    uniform,
)
from trm_jax.ops.conv import causal_conv
from trm_jax.ops.ssd import IMPLEMENTATIONS, mosaic_refuses, ssd, supports
from trm_jax.settings import knob
from trm_jax.types import SSD, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mamba2Settings:
    """config.model.mamba2."""

    expand: int = knob(2, "Inner width / d_model.", low=1, high=2**6)
    head_dim: int = knob(64, "Channels per head.", low=1, high=2**12)
    d_state: int = knob(128, "State dimensions per channel.", low=1, high=2**12)
    num_groups: int = knob(1, "Groups of heads that share B and C.", low=1, high=2**12)
    d_conv: int = knob(4, "Window of the convolution.", low=1, high=2**6)
    chunk_size: int = knob(
        64, "Tokens per chunk of the scan; changes speed only.", low=1, high=2**12
    )
    implementation: str = knob(
        "auto",
        "Form of the scan; auto: GPU kernels where they fit, batched on a TPU, else "
        "chunked.",
        choices=("auto", *IMPLEMENTATIONS),
    )

    def check(self, d_model: int, dtype: Any) -> None:
        """Raise ConfigError if heads or the chosen kernels do not allow the sizes."""
        inner, group = self.expand * d_model, self.head_dim * self.num_groups
        if inner % group:
            raise ConfigError(
                f"model.mamba2.expand * model.d_model = {inner} is not divisible by "
                f"head_dim * num_groups = {group}"
            )
        sizes = (self.head_dim, self.d_state, self.chunk_size)
        if self.implementation == "pallas" and not supports(*sizes, dtype):
            raise ConfigError(
                f"model.mamba2.head_dim, d_state and chunk_size = {sizes} in {dtype}; "
                "implementation = 'pallas' wants powers of two, head_dim x d_state of "
                "at most 32 KiB and no float64"
            )
        if self.implementation != "mosaic":
            return
        if refused := mosaic_refuses(*sizes, dtype):
            raise ConfigError(f"model.mamba2.implementation: {refused}")


class Mamba2(Sublayer):
    """Mamba-2, left to right."""

    section: ClassVar[str] = "mamba2"
    Settings: ClassVar[type] = Mamba2Settings
    no_decay: ClassVar[tuple[str, ...]] = (
        *("A_log", "D", "dt_bias", "norm_weight", "conv_bias"),
    )
    plain: ClassVar[dict[str, Any]] = {"implementation": "chunked"}
    forward_mode: ClassVar[dict[str, Any]] = {"implementation": "recurrent"}
    direction: ClassVar[str] = "forward"

    @classmethod
    def for_device(cls, settings: Any, kind: str, d_model: int, dtype: Any) -> Any:
        """The settings with the form that "auto" stands for, if it is known.

        Raises ConfigError if the device cannot run the named one.
        """
        if settings.implementation == "mosaic":
            only_on_hopper(cls.section, kind)
        forms = {"cpu": "chunked", "tpu": "batched"}
        form = forms.get(kind.lower().partition(" ")[0])
        if settings.implementation != "auto" or not form:
            return settings
        return dataclasses.replace(settings, implementation=form)

    @classmethod
    def columns(
        cls, settings: Any, name: str, shape: tuple[int, ...]
    ) -> tuple[int, ...]:
        """The input projection holds gate, x, B, C and dt, a matrix each."""
        if name == "in_proj/kernel":
            inner = settings.expand * shape[0]
            of_b = settings.num_groups * settings.d_state
            return (inner, inner, of_b, of_b, inner // settings.head_dim)
        return super().columns(settings, name, shape)

    @nn.compact
    def __call__(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        c, (b, l, d) = self.settings, hidden.shape
        inner, bc = c.expand * d, 2 * c.num_groups * c.d_state
        heads = inner // c.head_dim
        projected = Linear(2 * inner + bc + heads, name="in_proj")(hidden)
        sizes = (inner, inner, bc // 2, bc // 2)
        gate, *xbc, dt = jnp.split(projected, np.cumsum(sizes), axis=-1)
        wide = weight_dtype(hidden.dtype)
        kernel, bias = self._conv_params(inner + bc, wide)
        A_log, D, dt_bias = self._head_params(heads, wide)
        norm_weight = self.param("norm_weight", nn.initializers.ones, (inner,), wide)
        dt = nn.softplus(dt.astype(wide) + dt_bias[None, None])

        # The parts are convolved one by one: XLA would compute all for each of them.
        kernels, biases = (
            jnp.split(v, np.cumsum(sizes[1:-1]), axis=-1) for v in (kernel, bias)
        )

        def inputs(path: Path) -> tuple[Array, ...]:
            x, B, C = (
                nn.silu(causal_conv(path.into(part), taps, shift))
                for part, taps, shift in zip(xbc, kernels, biases, strict=True)
            )
            x = x.reshape(b, l, heads, c.head_dim)
            B, C = (v.reshape(b, l, c.num_groups, c.d_state) for v in (B, C))
            args = x, path.into(dt), -jnp.exp(A_log), B, C
            self.sow("intermediates", "scans", args)
            return args

        # The directions are further heads and groups, so all are one launch on a GPU.
        ways = paths(self.direction, self.grid_shape, self.prefix_len)
        of_direction = [inputs(path) for path in ways]
        args = (_together(parts) for parts in zip(*of_direction, strict=True))
        chosen = None if c.implementation == "auto" else c.implementation
        y, _ = ssd(*args, chunk_size=c.chunk_size, implementation=chosen)
        ys = jnp.split(checkpoint_name(y, SSD), len(ways), axis=2)

        def output(path: Path, y: Array, x: Array) -> Array:
            y = y + D[None, None, :, None] * x
            gated = path.back(y.reshape(b, l, inner)) * nn.silu(gate.astype(y.dtype))
            # The barrier keeps XLA from storing it in the wider dtype of the norm.
            gated = lax.optimization_barrier(gated.astype(x.dtype)).astype(wide)
            groups = gated.reshape(b, l, c.num_groups, inner // c.num_groups)
            return rms_norm(groups).reshape(b, l, inner) * norm_weight[None, None]

        xs = (x for x, *_ in of_direction)
        out = sum(map(output, ways, ys, xs), jnp.zeros((), dt.dtype))
        return Linear(d, name="out_proj")(out.astype(hidden.dtype))

    def _conv_params(self, width: int, dtype: Any) -> tuple[Params, Params]:
        window = self.settings.d_conv
        init = uniform(1 / math.sqrt(window))
        kernel = self.param("conv_kernel", init, (window, width), dtype)
        return kernel, self.param("conv_bias", init, (width,), dtype)

    def _head_params(self, heads: int, dtype: Any) -> tuple[Params, Params, Params]:
        """A starts in [-16, -1]; dt at zero input is log-uniform in [1e-3, 1e-1]."""

        def log_rate(key: Array, shape: tuple[int, ...]) -> Array:
            return jnp.log(
                jax.random.uniform(key, shape, dtype, minval=1.0, maxval=16.0)
            )

        A_log = self.param("A_log", log_rate, (heads,))
        D = self.param("D", nn.initializers.ones, (heads,), dtype)
        return A_log, D, self.param("dt_bias", log_uniform_dt, (heads,), dtype)


def _together(parts: tuple[Array, ...]) -> Array:
    """The arrays of all directions as one, along the axis of heads or groups."""
    if len(parts) == 1:
        return parts[0]
    return jnp.concatenate(parts, axis=min(2, parts[0].ndim - 1))


class Mamba2Backward(Mamba2):
    """Mamba-2, right to left."""

    direction: ClassVar[str] = "backward"
    looks_ahead: ClassVar[bool] = True


class Mamba2Both(Mamba2):
    """The sum of the outputs of both directions, computed with the same weights."""

    direction: ClassVar[str] = "both"
    looks_ahead: ClassVar[bool] = True


class Mamba2Column(Mamba2):
    """Mamba-2 over the prefix and then the cells column by column."""

    direction: ClassVar[str] = "column"


class Mamba2RowColumn(Mamba2):
    """The sum of the outputs by rows and by columns, with the same weights."""

    direction: ClassVar[str] = "row_column"


class Mamba2Four(Mamba2):
    """The sum by rows and by columns, forward and backward, with the same weights.

    Four directions over a grid follow VMamba (arXiv 2401.10166); the shared weights are
    ours.
    """

    direction: ClassVar[str] = "four"
    looks_ahead: ClassVar[bool] = True
