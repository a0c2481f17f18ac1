# SPDX-License-Identifier: Apache-2.0
"""The TFDS data set `maze_hard`."""
