# SPDX-License-Identifier: Apache-2.0
"""Check that short runs give the same bits twice, after a kill, and on a CPU.

This is the part "runs" of benchmarks/gpu_suite.py.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from benchmarks.common import printed

Left = Callable[[], float]  # seconds in which a process must end

ROOT = pathlib.Path(__file__).parent.parent
NETWORKS = ("mlp_t", "attention", "mamba2_attn")
STEPS, SAVED, KILLED = 60, 25, 40  # all, of the resumed save, of the kill
DIGEST = """
import sys
from trm_jax.training.build import build
from trm_jax.runtime.checkpoint import Checkpoints
from trm_jax.training.digest import state_digest
from trm_jax.runtime.workdir import read_run
config, data = read_run(sys.argv[1])
built = build(config | {"mesh": {"data": 1, "fsdp": 1}}, data["sizes"])
print(state_digest(Checkpoints(sys.argv[1]).restore_step(built.state_like, None)))
"""


def compare(network: str, left: Left) -> dict[str, Any]:
    """Compare the digests of the last states.

    Raises RuntimeError if they differ, and TimeoutExpired if no time is left.
    """
    with tempfile.TemporaryDirectory() as base:
        folders = [f"{base}/{name}" for name in ("first", "second", "killed")]
        for folder in folders[:2]:
            train(network, folder, left)
        train(network, folders[2], left, kill=True)
        train(network, folders[2], left)
        starts = [run["from_step"] for run in runs_of(folders[2])]
        if starts != [0, SAVED]:
            raise RuntimeError(f"killed and resumed, it started from steps {starts}")
        found = [digest(folder, left) for folder in folders]
        on_cpu = digest(folders[0], left, JAX_PLATFORMS="cpu")
    equal = {
        "a second run": found[0] == found[1],
        "killed and resumed": found[0] == found[2],
        "restored on a CPU": found[0] == on_cpu,
    }
    if not all(equal.values()):
        raise RuntimeError(f"not the same bits: {equal}")
    return {"equal": equal, "digest": found[0]}


def train(network: str, folder: str, left: Left, *, kill: bool = False) -> None:
    """Run the smoke config; `kill` ends it with -9 after step KILLED and save SAVED."""
    flags = {"train.steps": STEPS, "train.checkpoint_every": SAVED}
    flags |= {"train.log_every": KILLED // 2, "train.eval_every": 0, "mesh.data": 1}
    command = [
        *(sys.executable, "train.py", f"--config=configs/smoke.py:{network}"),
        *(f"--config.{key}={value}" for key, value in flags.items()),
        *(f"--workdir={folder}", "--deterministic"),
    ]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        timer = threading.Timer(left(), process.kill)
        timer.daemon = True
        timer.start()
        lines = []
        for line in process.stdout or ():
            lines.append(line)
            logged = any(line.startswith(f"step {KILLED}/") for line in lines)
            if kill and logged and f"saved step {SAVED}\n" in lines:
                process.kill()
        timer.cancel()
    if left() <= 0:
        raise subprocess.TimeoutExpired(command, 0.0)
    if process.returncode != (-9 if kill else 0):
        raise RuntimeError(f"train.py ended with {process.returncode}: {lines[-5:]}")


def runs_of(folder: str) -> list[dict[str, Any]]:
    """The records in runs.jsonl, one per start of the run."""
    text = pathlib.Path(folder, "runs.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def digest(folder: str, left: Left, **changes: str) -> str:
    """Digest of the newest state, restored by a process with a changed environment."""
    command = [sys.executable, "-c", DIGEST, folder]
    return printed(command, left(), cwd=ROOT, env=environment() | changes)


def environment() -> dict[str, str]:
    """Turn preallocation off: this process already holds most of the GPU's memory."""
    return os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
