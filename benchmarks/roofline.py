# SPDX-License-Identifier: Apache-2.0
"""The least time of a training step on a GPU that is not there, kernel by kernel.

python benchmarks/roofline.py --config configs/sudoku_extreme.py[:variant] [...]
                              [--remat dots:1 none:6 ...] [--topology h200:1]
                              [--set train.batch_size=384 ...] [--top=N]

Compiles each config ahead of time, which needs the extra `aot` and no GPU, and adds up
the least time of all kernels (benchmarks/kernels.py), with loops multiplied out. Prints
one line for each config and each pair of remat and unroll, settings of its rule (of the
inner one, if it wraps another): milliseconds of a step, hours of the whole training at
that pace, milliseconds and GB moved by group of kernels (matrix products; attention by
cuDNN; Pallas kernels; copies and stacks of a loop's residuals; other), GB moved in all,
and GB of temporary values.
--top adds the N kernels that take longest. Nothing is run.

The rates are those of an H200 in bfloat16, so other chips and dtypes are refused.
"""

import argparse
import itertools
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks.aot import compile_step, config_of
from benchmarks.kernels import GROUPS, Kernel, kernels
from configs._levers import innermost

HEADER = (
    f"{'config':<26} {'remat':<8} {'ms':>6} {'hours':>6} "
    + " ".join(f"{name:>9} {'GB':>6}" for name in GROUPS)
    + "    all GB  temps GB"
)


def measure(path: str, topology: str, config: Any, top: int = 0) -> str:
    """The line of one config, and its `top` kernels that take longest."""
    _, compiled = compile_step(path, config, topology)
    text = compiled.as_text()
    each = list(kernels(text))
    return (
        as_line(each, config.train.steps)
        + f" {compiled.memory_analysis().temp_size_in_bytes / 1e9:>9.1f}"
        + "".join(f"\n  {longest}" for longest in slowest(each, text, top))
    )


def as_line(each: list[Kernel], steps: int) -> str:
    """Milliseconds of a step, hours of all steps, ms and GB by group, and all GB."""
    ms, moved = dict.fromkeys(GROUPS, 0.0), dict.fromkeys(GROUPS, 0.0)
    for k in each:
        ms[k.group] += 1e3 * k.seconds
        moved[k.group] += k.count * k.nbytes / 1e9
    step = sum(ms.values())
    return (
        f"{step:>6.1f} {steps * step / 3.6e6:>6.1f} "
        + " ".join(f"{ms[g]:>9.1f} {moved[g]:>6.1f}" for g in GROUPS)
        + f" {sum(moved.values()):>9.1f}"
    )


def slowest(each: list[Kernel], text: str, top: int) -> Iterator[str]:
    """Lines about the `top` kernels that take longest, with the operation they are."""
    names = {k.name for k in sorted(each, key=lambda k: -k.seconds)[:top]}
    of = dict(re.findall(r'%([\w.\-]+) = .*op_name="([^"]*)"', text))
    for k in sorted(each, key=lambda k: -k.seconds):
        if k.name in names:
            yield (
                f"{1e3 * k.seconds:>8.2f} ms {k.count:>4g} x {k.nbytes / 1e6:>7.1f} MB "
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
    if args.topology.partition(":")[0] != "h200":
        parser.error(f"--topology={args.topology}: the rates are those of an h200")
    cases = []
    for path, pair in itertools.product(args.config, args.remat or [""]):
        config = config_of(path, args.set)
        if pair:
            rule = config.rule[innermost(config)]
            remat, _, unroll = pair.partition(":")
            rule.update(remat=remat, unroll=int(unroll))
        if (dtype := config.model.dtype) != "bfloat16":
            parser.error(f"{path} has model.dtype = {dtype!r}; expected bfloat16")
        cases.append((path, pair, config))
    print(HEADER)
    for path, pair, config in cases:
        name = path.removeprefix("configs/").replace(".py", "")
        line = measure(path, args.topology, config, args.top)
        print(f"{name:<26} {pair or '-':<8} {line}", flush=True)


if __name__ == "__main__":
    main()
