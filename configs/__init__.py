# SPDX-License-Identifier: Apache-2.0
"""Config files, one per experiment. `default.py` has the default of every setting."""
