# SPDX-License-Identifier: Apache-2.0
"""State-space duality, the scan of Mamba-2: several forms behind one function."""

from trm_jax.ops.ssd.mosaic_tiles import mosaic_refuses
from trm_jax.ops.ssd.ssd import IMPLEMENTATIONS, ssd
from trm_jax.ops.ssd.tiles import supports

__all__ = ["IMPLEMENTATIONS", "mosaic_refuses", "ssd", "supports"]
