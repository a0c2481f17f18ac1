# SPDX-License-Identifier: Apache-2.0
"""Recursive reasoning models in JAX. Read types.py first, then rules/trm.py."""

__version__ = "0.1.0"
