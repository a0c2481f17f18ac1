# SPDX-License-Identifier: Apache-2.0
"""The machinery of a run: checkpoints, processes, logs, the loop."""
