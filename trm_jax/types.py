# SPDX-License-Identifier: Apache-2.0
"""The four values that travel through the code, and the letters of their axes.

b batch   m grid cells   l sequence length (tokens before the grid + m)   d model width
f feed-forward width   h heads   k attention head dim   v vocabulary
e puzzle-vector width   c halting logits
"""

from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int

BATCH_AXES = ("data", "fsdp")  # the mesh axes that share the rows of a batch
MATMUL, SSD = "matmul", "ssd"  # names of results that remat policies may keep
SCAN_SCOPE = "state_space_scan"  # in the name of every operation of a scan
Params = Any  # a Flax parameter tree
State = Any  # a rule's own NamedTuple of arrays, batch axis first
Metrics = dict[str, tuple[Array, Array]]  # name -> (sum, count); see metrics.py


class Batch(NamedTuple):
    """One row per puzzle. Training reads it from the carry, where `refill` puts it."""

    inputs: Int[Array, "b m"]
    labels: Int[Array, "b m"]
    label_mask: Bool[Array, "b m"]  # cells that count
    puzzle_id: Int[Array, " b"]  # row of the puzzle table
    weight: Float[Array, " b"]  # 0 on padding rows, else 1


class Carry(NamedTuple):
    """What survives between supervision steps, row by row."""

    state: State  # of the rule: TRM keeps y and z here
    steps: Int[Array, " b"]  # supervision steps done on this row's puzzle
    halted: Bool[Array, " b"]  # the next refill replaces this row
    batch: Batch  # the current rows: labels are read only from here


class StepOutput(NamedTuple):
    """What one supervision step predicts."""

    logits: Float[Array, "b m v"]
    q_halt: Float[Array, " b"]  # logit that the answer is already right
    wants_halt: Bool[Array, " b"]  # whether the rule would stop here


class TrainState(NamedTuple):
    """Everything the next training step reads, and all that a checkpoint holds."""

    step: Int[Array, ""]  # optimiser updates done
    params: Params
    constants: Params  # drawn once by the rule, never trained
    ema_params: Params
    opt_state: Any
    puzzle_table: Float[Array, "ids e"]
    carry: Carry
    metrics: Metrics  # sums since the last log line
