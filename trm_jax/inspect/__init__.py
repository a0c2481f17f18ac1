# SPDX-License-Identifier: Apache-2.0
"""Figures of runs; nothing below imports this folder."""
