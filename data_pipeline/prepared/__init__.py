# SPDX-License-Identifier: Apache-2.0
"""Data sets as TFDS stores them, one folder each; writing.py, then reading.py."""
