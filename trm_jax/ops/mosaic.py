# SPDX-License-Identifier: Apache-2.0
"""What all kernels for Hopper GPUs (Mosaic GPU) share."""

import importlib
from typing import Any

import jax
from jaxtyping import DTypeLike


class _MosaicGPU:
    """The module of Mosaic GPU, imported once it is used.

    Importing it takes a fifth of the start of a command. Older versions of jax lack
    some of its names.
    """

    def __getattr__(self, name: str) -> Any:
        module = importlib.import_module("jax.experimental.pallas.mosaic_gpu")
        return getattr(module, name)


plgpu = _MosaicGPU()

TILE = (8, 64)  # of a matrix in shared memory; copies take whole ones


def too_old() -> str | None:
    """Why this version of jax has no such kernels, or None if it has."""
    if hasattr(plgpu, "InterpretGPUParams"):
        return None
    return f"mosaic needs jax >= 0.11, and this is jax {jax.__version__}"


def order() -> tuple[Any, ...]:
    """The order of matrices in shared memory that the tensor cores read."""
    return plgpu.TilingTransform(TILE), plgpu.SwizzleTransform(128)


def tiled(*shape: int, dtype: DTypeLike) -> Any:
    """Shared memory for matrices in this order."""
    return plgpu.SMEM(shape, dtype, transforms=order())
