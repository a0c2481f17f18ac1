# SPDX-License-Identifier: Apache-2.0
"""One training step: losses, optimisers, sharding, cost."""
