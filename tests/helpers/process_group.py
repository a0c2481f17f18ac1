# SPDX-License-Identifier: Apache-2.0
"""Start several local processes as one run, with virtual CPU devices."""

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
XLA_FLAGS = os.environ["XLA_FLAGS"]  # as tests/conftest.py has set them


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def group_flags(num, index, port):
    return [
        f"--coordinator=127.0.0.1:{port}",
        f"--num_processes={num}",
        f"--process_id={index}",
    ]


def environment(devices):
    count = f"--xla_force_host_platform_device_count={devices}"
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", count, XLA_FLAGS)
    settings = {"JAX_PLATFORMS": "cpu", "PJRT_NPROC": "16", "XLA_FLAGS": flags}
    return os.environ | settings | {"PYTHONPATH": str(ROOT)}


def run_member(main, define=lambda values: None):
    """Run `main(values)` as a command, once this process has joined its group."""
    from absl import flags

    from trm_jax.commands import shell

    def command(argv):
        values = flags.FlagValues()
        shell.define_process_flags(values)
        define(values)

        def act():
            shell.parse_flags(values, argv)
            shell.join_processes(values)
            return main(values)

        return shell.call(act, values, argv, doc="")

    shell.run(command)


class ProcessGroup:
    """`num` processes of one command, killed at the end of the `with` block.

    `extra` and `env` hold further flags and variables for each process. A single
    process gets no flags for a group.
    """

    def __init__(self, command, num, folder, *, devices=1, extra=None, env=None):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.logs = [folder / f"process_{i}.log" for i in range(num)]
        self.processes = []
        for i, path in enumerate(self.logs):
            flags = group_flags(num, i, port) if num > 1 else []
            with path.open("w") as log:
                process = subprocess.Popen(
                    [*command, *flags, *(extra or {}).get(i, [])],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=ROOT,
                    env=environment(devices) | (env or {}).get(i, {}),
                )
            self.processes.append(process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def output(self, index):
        return self.logs[index].read_text()

    def outputs(self):
        parts = [f"--- {path.name}\n{path.read_text()}" for path in self.logs]
        return "\n".join(parts)

    def send(self, index, number=signal.SIGKILL):
        self.processes[index].send_signal(number)

    def codes(self, timeout_s, but=()):
        """The return codes, None for those in `but`; fail if a process does not end."""
        end = time.monotonic() + timeout_s
        for i, process in enumerate(self.processes):
            if i not in but:
                try:
                    process.wait(max(end - time.monotonic(), 0.01))
                except subprocess.TimeoutExpired:
                    text = f"process {i} did not end within {timeout_s} s"
                    raise AssertionError(f"{text}\n{self.outputs()}") from None
        return [
            None if i in but else p.returncode for i, p in enumerate(self.processes)
        ]

    def await_text(self, index, text, timeout_s=120):
        """Wait until process `index` has written `text`."""
        end = time.monotonic() + timeout_s
        while text not in self.output(index):
            running = self.processes[index].poll() is None
            assert running, f"ended before {text!r}\n{self.outputs()}"
            assert time.monotonic() < end, f"no {text!r}\n{self.outputs()}"
            time.sleep(0.02)
