# SPDX-License-Identifier: Apache-2.0
"""A new puzzle: the worked example of CONTRIBUTING.md."""
