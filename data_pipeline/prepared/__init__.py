# SPDX-License-Identifier: Apache-2.0
"""Data sets stored with TFDS: writing.py writes them, and reading.py opens them."""
