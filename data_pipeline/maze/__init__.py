# SPDX-License-Identifier: Apache-2.0
"""Mazes: grids, files, the solver, the generator, their turned forms."""
