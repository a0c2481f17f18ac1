# SPDX-License-Identifier: Apache-2.0
"""Rules of one's own: the worked examples of CONTRIBUTING.md."""
