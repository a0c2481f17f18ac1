# SPDX-License-Identifier: Apache-2.0
"""Evaluation: pose the test puzzles, score the answers, count the votes."""
