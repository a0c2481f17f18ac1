# SPDX-License-Identifier: Apache-2.0
"""Config files; each is one claim. `default.py` has every knob once."""
