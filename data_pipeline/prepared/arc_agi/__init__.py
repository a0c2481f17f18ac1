# SPDX-License-Identifier: Apache-2.0
"""The TFDS data set `arc_agi`."""
