# SPDX-License-Identifier: Apache-2.0
"""ModelConfig: the sizes of the network and the settings of its operators."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from trm_jax.errors import ConfigError
from trm_jax.model.layers import weight_dtype
from trm_jax.model.positions import LEARNED, units
from trm_jax.model.sublayers import SUBLAYERS, operator
from trm_jax.settings import knob, own_values, read


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """config.model, without the sections of the operators."""

    layers: tuple[str, ...] = knob(
        ("attention", "swiglu") * 2, "Sublayers by name, from input to output."
    )
    d_model: int = knob(512, "Width of the latent states.", low=1, high=2**16)
    norm: str = knob(
        "post",
        "Place of the norm: h = rms(h + f(h)), or h = h + f(rms(h)) and one more "
        "before the heads.",
        choices=("post", "pre"),
    )
    positions: str = knob(
        "none",
        "What is added to the embedded question: nothing, one learned vector per "
        "position, or learned vectors of rows and columns (and boxes, for Sudoku).",
        choices=("none", *LEARNED),
    )
    prefix_len: int = knob(
        16, "Tokens before the grid that hold the puzzle vector.", low=0, high=2**12
    )
    registers: int = knob(
        0, "Tokens between the prefix and the grid.", low=0, high=2**12
    )
    registers_trained: bool = knob(
        True, "Whether training changes the registers; else they stay as drawn."
    )
    puzzle_dim: int = knob(
        0, "Width of a puzzle vector; 0 = d_model.", low=0, high=2**16
    )
    dtype: str = knob(
        "bfloat16",
        "Dtype of activations and of the carry; weights are float32 or wider.",
        choices=("bfloat16", "float32", "float64"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Settings of the network and of the operators it uses, and sizes of the data."""

    settings: ModelSettings
    operators: tuple[tuple[str, Any], ...]  # section -> its settings
    vocab_size: int
    grid_shape: tuple[int, int]  # rows, columns
    num_puzzles: int
    blank: int  # token of an unknown cell; -1 if the task has none
    box_shape: tuple[int, int] | None = None  # rows and columns of a box of Sudoku
    halt_position: str = "first"

    @classmethod
    def of(
        cls,
        section: Mapping[str, Any],
        sizes: Mapping[str, Any],
        *,
        halt_position: str = "first",
    ) -> "ModelConfig":
        """Build it from config.model and the sizes of the data. Raises ConfigError."""
        settings = read(ModelSettings, own_values(section), "model")
        used = dict.fromkeys(operator(name).section for name in settings.layers)
        kinds = {op.section: op.Settings for op in SUBLAYERS.values()}
        operators = tuple(
            (name, read(kinds[name], section[name], f"model.{name}")) for name in used
        )
        shapes = {
            name: tuple(sizes[name])
            for name in ("grid_shape", "box_shape")
            if name in sizes
        }
        return cls(
            settings=settings,
            operators=operators,
            halt_position=halt_position,
            **{**sizes, **shapes},
        )

    def __post_init__(self) -> None:
        s = self.settings
        if not s.layers:
            raise ConfigError("model.layers is empty; expected sublayer names")
        if s.prefix_len and self.puzzle_width > s.prefix_len * s.d_model:
            raise ConfigError(
                f"model.puzzle_dim = {s.puzzle_dim} does not fit into prefix_len = "
                f"{s.prefix_len} tokens of d_model = {s.d_model}"
            )
        if s.puzzle_dim and not s.prefix_len:
            raise ConfigError(
                f"model.puzzle_dim = {s.puzzle_dim}, but nothing reads it where "
                "model.prefix_len = 0"
            )
        if not (s.registers or s.registers_trained):
            raise ConfigError(
                "model.registers_trained = False, but nothing reads it where "
                "model.registers = 0"
            )
        if s.positions == "rows_columns_boxes" and not self.box_shape:
            raise ConfigError(
                "model.positions = 'rows_columns_boxes', but these puzzles have no "
                "boxes; expected 'rows_columns'"
            )
        for _, settings in self.operators:
            settings.check(self.d_model, self.compute_dtype)

    def in_form(self, form: str) -> "ModelConfig":
        """The same network with its operators' `plain` or `forward_mode` settings."""
        changes = {op.section: getattr(op, form) for op in SUBLAYERS.values()}
        operators = tuple(
            (name, dataclasses.replace(settings, **changes[name]))
            for name, settings in self.operators
        )
        return dataclasses.replace(self, operators=operators)

    def for_device(self, kind: str) -> "ModelConfig":
        """The same network with its operators' forms for devices of this kind."""
        kinds = {op.section: op for op in map(operator, self.layers)}
        d, dtype = self.d_model, self.compute_dtype
        operators = tuple(
            (name, kinds[name].for_device(settings, kind, d, dtype))
            for name, settings in self.operators
        )
        return dataclasses.replace(self, operators=operators)

    def operator(self, section: str) -> Any:
        """The settings of one operator."""
        return dict(self.operators)[section]

    @property
    def layers(self) -> tuple[str, ...]:
        """Sublayers by name."""
        return self.settings.layers

    @property
    def d_model(self) -> int:
        """Width of the latent states."""
        return self.settings.d_model

    @property
    def prefix_len(self) -> int:
        """Tokens before the grid: those of the puzzle vector, then the registers."""
        return self.settings.prefix_len + self.settings.registers

    @property
    def num_cells(self) -> int:
        """Cells of the grid, m."""
        return self.grid_shape[0] * self.grid_shape[1]

    @property
    def seq_len(self) -> int:
        """The length l: tokens before the grid, then its cells."""
        return self.prefix_len + self.num_cells

    @property
    def position_units(self) -> dict[str, np.ndarray]:
        """The tables of the learned positions, see `positions.units`; {} for none."""
        kind = self.settings.positions
        if kind not in LEARNED:
            return {}
        return units(kind, self.grid_shape, self.box_shape, self.prefix_len)

    @property
    def puzzle_width(self) -> int:
        """Width of a puzzle-table row, e."""
        return self.settings.puzzle_dim or self.d_model

    @property
    def compute_dtype(self) -> Any:
        """Dtype of activations and of the carry."""
        return jnp.dtype(self.settings.dtype)

    @property
    def weight_dtype(self) -> Any:
        """Dtype of weights and of the puzzle table: float32, or float64 if all is."""
        return weight_dtype(self.compute_dtype)
