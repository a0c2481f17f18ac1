# SPDX-License-Identifier: Apache-2.0
"""Figures of runs; no other folder imports this one."""
