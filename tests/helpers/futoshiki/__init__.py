# SPDX-License-Identifier: Apache-2.0
"""A puzzle of one's own: the worked example of CONTRIBUTING.md."""
