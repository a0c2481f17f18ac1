# SPDX-License-Identifier: Apache-2.0
"""Solve one puzzle with a trained model; see --help."""

from trm_jax.commands import solve

if __name__ == "__main__":
    solve.run()
