# SPDX-License-Identifier: Apache-2.0
"""Looking inside runs and models. Nothing in the folders below imports this one."""
