# SPDX-License-Identifier: Apache-2.0
"""The least time of a training step on a GPU that is not there, kernel by kernel.

python benchmarks/roofline.py --config configs/sudoku_extreme.py[:variant] [...]
                              [--remat dots:1 none:6 ...] [--topology h200:1]
                              [--set train.batch_size=384 ...] [--top=N]

Compiles each config ahead of time, which needs the extra `aot` and no GPU, and adds up
the least time of all kernels (benchmarks/kernels.py), with loops multiplied out. Prints
one line for each config and each pair of rule.trm.remat and rule.trm.unroll:
milliseconds of a step, hours of the whole training at that pace, milliseconds by group
of kernels (matrix products; attention by cuDNN; Pallas kernels; copies and stacks of a
loop's residuals; other), bytes moved, and bytes of temporary values. --top adds the N
kernels that take longest. Nothing is run.
"""

import argparse
import pathlib
import re
import sys
from collections.abc import Iterator

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks.aot import compile_step, config_of
from benchmarks.kernels import GROUPS, Kernel, kernels

HEADER = (
    f"{'config':<26} {'remat':<8} {'ms':>6} {'hours':>6} "
    + " ".join(f"{name:>8}" for name in GROUPS)
    + "  moved GB  temps GB"
)


def measure(path: str, topology: str, changes: list[str], top: int = 0) -> str:
    """The line of one config, and its `top` kernels that take longest."""
    config = config_of(path, changes)
    _, compiled = compile_step(path, config, topology)
    text = compiled.as_text()
    each = list(kernels(text))
    times = {g: sum(1e3 * k.seconds for k in each if k.group == g) for g in GROUPS}
    step = sum(times.values())
    return (
        f"{step:>6.1f} {config.train.steps * step / 3.6e6:>6.1f} "
        + " ".join(f"{ms:>8.1f}" for ms in times.values())
        + f" {sum(k.count * k.nbytes for k in each) / 1e9:>9.1f}"
        + f" {compiled.memory_analysis().temp_size_in_bytes / 1e9:>9.1f}"
        + "".join(f"\n  {longest}" for longest in slowest(each, text, top))
    )


def slowest(each: list[Kernel], text: str, top: int) -> Iterator[str]:
    """Lines about the `top` kernels that take longest, with the operation they are."""
    names = {k.name for k in sorted(each, key=lambda k: -k.seconds)[:top]}
    of = dict(re.findall(r'%([\w.\-]+) = .*op_name="([^"]*)"', text))
    for k in sorted(each, key=lambda k: -k.seconds):
        if k.name in names:
            yield (
                f"{1e3 * k.seconds:>8.2f} ms {k.count:>4} x {k.nbytes / 1e6:>7.1f} MB "
                f"{k.group:<9} {of.get(k.name, k.name)[-90:]}"
            )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", nargs="+", required=True)
    parser.add_argument("--topology", default="h200:1")
    parser.add_argument("--remat", nargs="+", metavar="POLICY:UNROLL", default=[])
    parser.add_argument("--top", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    print(HEADER)
    for path in args.config:
        name = path.removeprefix("configs/").replace(".py", "")
        for pair in args.remat or [""]:
            remat, _, unroll = pair.partition(":")
            changes = [f"rule.trm.remat={remat}", f"rule.trm.unroll={unroll}"]
            changes = [*args.set, *(changes if pair else [])]
            line = measure(path, args.topology, changes, args.top)
            print(f"{name:<26} {pair or '-':<8} {line}", flush=True)


if __name__ == "__main__":
    main()
