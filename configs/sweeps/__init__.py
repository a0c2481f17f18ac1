# SPDX-License-Identifier: Apache-2.0
"""Sweeps: configs that are compared over several seeds; `sweep.py` runs them."""
