# SPDX-License-Identifier: Apache-2.0
"""Evaluate a checkpoint; see --help."""

from trm_jax.commands import eval

if __name__ == "__main__":
    eval.run()
