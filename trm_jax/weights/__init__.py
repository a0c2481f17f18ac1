# SPDX-License-Identifier: Apache-2.0
"""Weights in files: the exchange format and the published PyTorch layout."""
