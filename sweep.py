# SPDX-License-Identifier: Apache-2.0
"""Train and evaluate the runs of a sweep, and write their table; see --help."""

from trm_jax.commands import sweep

if __name__ == "__main__":
    sweep.run()
