# SPDX-License-Identifier: Apache-2.0
"""Sudoku: grids of any box size, files, the solver, the generator, symmetries."""
