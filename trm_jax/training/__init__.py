# SPDX-License-Identifier: Apache-2.0
"""One training step: supervision, metrics, optimisers, sharding, cost."""
