# SPDX-License-Identifier: Apache-2.0
"""What recurs: one file a rule. Read `recursion.py`, then `trm.py`."""
