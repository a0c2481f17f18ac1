# SPDX-License-Identifier: Apache-2.0
"""Puzzle files in, batches out. Host only: numpy, never jax, never trm_jax."""
