# SPDX-License-Identifier: Apache-2.0
"""Nonograms: clues, grids, text and files, the solver, the generator, turned forms."""
