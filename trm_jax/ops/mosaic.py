# SPDX-License-Identifier: Apache-2.0
"""What all kernels for Hopper GPUs (Mosaic GPU) share."""

from typing import Any

import jax
from jax.experimental.pallas import mosaic_gpu
from jaxtyping import DTypeLike

plgpu: Any = mosaic_gpu  # its functions have other arguments in older versions of jax

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
