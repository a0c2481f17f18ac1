# SPDX-License-Identifier: Apache-2.0
"""New rules: the worked examples of CONTRIBUTING.md."""
