# SPDX-License-Identifier: Apache-2.0
"""Tiny Recursive Models in JAX. Read `types.py` first, then `recursion.py`."""

__version__ = "0.1.0"
