# SPDX-License-Identifier: Apache-2.0
"""The network: sublayers, their stack, embedding and heads."""
