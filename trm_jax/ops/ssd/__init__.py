# SPDX-License-Identifier: Apache-2.0
"""State-space duality, the scan of Mamba-2, in several forms behind `ssd`."""
