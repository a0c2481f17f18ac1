# SPDX-License-Identifier: Apache-2.0
"""Test puzzles posed, answers scored, votes counted."""
