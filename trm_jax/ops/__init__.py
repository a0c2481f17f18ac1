# SPDX-License-Identifier: Apache-2.0
"""Operators as pure functions of arrays, in the letters of the Mamba-2 paper."""
