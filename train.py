# SPDX-License-Identifier: Apache-2.0
"""Train a model, or resume it where it stopped; see --help."""

from trm_jax.commands import train

if __name__ == "__main__":
    train.run()
