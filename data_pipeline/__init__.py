# SPDX-License-Identifier: Apache-2.0
"""From puzzle files to batches with NumPy. No module imports jax or trm_jax."""
