# SPDX-License-Identifier: Apache-2.0
"""What every operator has in common."""

from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from trm_jax.errors import ConfigError


class Sublayer(nn.Module):
    """An operator `b l d -> b l d`, with its settings in a section of config.model.

    `Settings` is a frozen dataclass of knobs; its `check(d_model, dtype)` raises
    ConfigError if values do not fit together.
    """

    settings: Any
    grid_shape: tuple[int, int]  # rows and columns of the cells
    prefix_len: int  # positions before the cells

    section: ClassVar[str]  # of config.model
    Settings: ClassVar[type[Any]]
    no_decay: ClassVar[tuple[str, ...]] = ()  # its own parameters without weight decay
    looks_ahead: ClassVar[bool] = False  # the first position sees later ones
    norm_axis: ClassVar[int] = -1  # of the norm that follows it
    plain: ClassVar[dict[str, Any]] = {}  # settings under which its cost can be counted
    forward_mode: ClassVar[dict[str, Any]] = {}  # settings under which jax.jvp works

    @classmethod
    def first_sees(cls, settings: Any, prefix_len: int) -> bool:
        """Whether the first position sees cells, with these settings."""
        return cls.looks_ahead

    @classmethod
    def for_device(cls, settings: Any, kind: str, d_model: int, dtype: Any) -> Any:
        """The settings with what "auto" stands for on devices of this kind."""
        return settings

    @classmethod
    def columns(
        cls, settings: Any, name: str, shape: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Widths of the matrices (in, out) side by side in a parameter; () if none are.

        Muon orthogonalises each of them by itself. `name` is the path of the parameter
        within the operator. The kernel of a `Linear` is a matrix, and a parameter
        called `gate_up` holds two.
        """
        if name.startswith("gate_up"):
            return (shape[1] // 2,) * 2
        return shape[1:] if name.endswith("/kernel") else ()

    def __call__(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        """What is added to `hidden` before the norm."""
        raise NotImplementedError


def only_on_hopper(section: str, kind: str) -> None:
    """Raise ConfigError unless devices of this kind run kernels of Mosaic GPU."""
    if not kind.startswith(("NVIDIA H100", "NVIDIA H200")):
        raise ConfigError(
            f"model.{section}.implementation = 'mosaic', but the device is {kind!r}; "
            "expected an H100 or H200"
        )


def inner_width(chosen: int, expansion: float, width: int) -> int:
    """Inner width of a SwiGLU: `chosen`, or if that is 0, the papers' rounded width."""
    return chosen or -(-round(expansion * width * 2 / 3) // 256) * 256
