# SPDX-License-Identifier: Apache-2.0
"""ModelConfig: every size and choice of the network and of its recursion."""

import dataclasses
from typing import Any, get_type_hints

import jax
import jax.numpy as jnp

from trm_jax.errors import ConfigError
from trm_jax.ops.ssd.tiles import supports

CHOICES = {
    "positions": ("rope", "learned", "none"),
    "dtype": ("float32", "bfloat16", "float64"),
    "remat": ("none", "dots", "full"),
    "ssd_implementation": ("auto", "recurrent", "chunked", "pallas"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes and choices; see configs/default.py for what each one means.

    Raises:
      ConfigError: a value is out of range or two values do not fit together.
    """

    layers: tuple[str, ...]
    d_model: int
    num_heads: int
    expansion: float
    swiglu_width: int
    token_mlp_width: int
    expand: int
    head_dim: int
    d_state: int
    num_groups: int
    d_conv: int
    chunk_size: int
    ssd_implementation: str
    positions: str
    rope_theta: float
    prefix_len: int
    puzzle_dim: int
    h_cycles: int
    l_cycles: int
    max_supervision_steps: int
    explore_rate: float
    dtype: str
    remat: str
    vocab_size: int
    num_cells: int
    num_puzzles: int

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if value not in CHOICES.get(name, (value,)):
                names = ", ".join(CHOICES[name])
                raise ConfigError(f"model.{name} = {value!r}; expected one of {names}")
            if hint is int and value < self._least(name):
                least = self._least(name)
                raise ConfigError(
                    f"model.{name} = {value}; expected a whole number >= {least}"
                )
        if jax.dtypes.canonicalize_dtype(self.dtype) != self.dtype:
            raise ConfigError("model.dtype = 'float64' needs JAX_ENABLE_X64=1")
        if not self.layers:
            raise ConfigError("model.layers is empty; expected sublayer names")
        if not 0 <= self.explore_rate <= 1:
            raise ConfigError(
                f"model.explore_rate = {self.explore_rate}; expected 0 to 1"
            )
        if self.d_model % (2 * self.num_heads) and "attention" in self.layers:
            raise ConfigError(
                f"model.d_model = {self.d_model} is not divisible by "
                f"2 * num_heads = {2 * self.num_heads} (rotary heads are even)"
            )
        if any(name.startswith("mamba2") for name in self.layers):
            self._check_mamba2()
        if self.prefix_len and self.puzzle_width > self.prefix_len * self.d_model:
            raise ConfigError(
                f"model.puzzle_dim = {self.puzzle_dim} does not fit into prefix_len = "
                f"{self.prefix_len} tokens of d_model = {self.d_model}"
            )

    def _check_mamba2(self) -> None:
        inner, group = self.expand * self.d_model, self.head_dim * self.num_groups
        if inner % group:
            raise ConfigError(
                f"model.expand * d_model = {inner} is not divisible by "
                f"head_dim * num_groups = {group}"
            )
        sizes = (self.head_dim, self.d_state, self.chunk_size)
        fits = supports(*sizes, self.compute_dtype)
        if self.ssd_implementation == "pallas" and not fits:
            raise ConfigError(
                f"model.head_dim, d_state and chunk_size = {sizes} in {self.dtype}; "
                "model.ssd_implementation = 'pallas' wants powers of two, head_dim x "
                "d_state of at most 32 KiB and no float64"
            )

    @staticmethod
    def _least(name: str) -> int:
        may_be_zero = ("prefix_len", "puzzle_dim", "swiglu_width", "token_mlp_width")
        return 0 if name in may_be_zero else 1

    @property
    def seq_len(self) -> int:
        """The length l: prefix tokens, then grid cells."""
        return self.prefix_len + self.num_cells

    @property
    def puzzle_width(self) -> int:
        """Width of a puzzle-table row."""
        return self.puzzle_dim or self.d_model

    @property
    def compute_dtype(self) -> Any:
        """Dtype of activations and of the carry; weights are float32."""
        return jnp.dtype(self.dtype)

    def inner_width(self, width: int, chosen: int) -> int:
        """SwiGLU inner width: the chosen one, or the papers' rounding for 0."""
        return chosen or -(-round(self.expansion * width * 2 / 3) // 256) * 256
