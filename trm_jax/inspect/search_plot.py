# SPDX-License-Identifier: Apache-2.0
"""The table and the figure of `eval.py --search`."""

from pathlib import Path
from typing import Any

from trm_jax.inspect import style

TITLES = {
    "q_halt": "best q",
    "mean_q": "best mean q",
    "residual": "least residual",
    "majority": "majority",
    "oracle": "oracle",
}


def as_text(result: dict[str, Any]) -> str:
    """One line per point: network calls and the exact accuracy of every pick, in %."""
    points = result["points"]
    heads = "".join(f"{title:>16}" for title in TITLES.values())
    lines = [
        f"step {result['step']}, {result['weights']} weights, "
        f"{points[0]['puzzles']} puzzles, {result['calls_per_step']} network calls a "
        "supervision step",
        f"{'search':<10}{'steps':>6}{'chains':>8}{'calls':>10}{heads}",
    ]
    for point in points:
        cells = [100 * point["exact"][pick]["accuracy"] for pick in TITLES]
        lines.append(
            f"{point['search']:<10}{point['steps']:>6}{point['chains']:>8}"
            f"{point['calls']:>10.1f}" + "".join(f"{cell:>16.2f}" for cell in cells)
        )
    wide = max(
        (high - low, low, high)
        for point in points
        for low, high in (each["accuracy_95"] for each in point["exact"].values())
    )
    lines.append(
        "calls: mean network calls per puzzle; the widest 95 % interval is "
        f"{100 * wide[1]:.2f} to {100 * wide[2]:.2f}"
    )
    for name, found in result["diagnostics"].items():
        lines.append(f"{name}: {_facts(found)}")
    return "\n".join(lines)


def _facts(found: dict[str, Any]) -> str:
    """The diagnostics of a search in one line."""

    def of(key: str, name: str) -> str:
        value = found[key][name]
        return "-" if value is None else f"{value:.2f}"

    tube, entropy = "tube_stability", "cloud_token_entropy_nats"
    guide, residual = "guide_alignment", "residual_alignment"
    return (
        f"chains that end in the plain answer {of(tube, 'solved')} where it is right, "
        f"{of(tube, 'unsolved')} where not; q tells right from wrong "
        f"{of(guide, 'correlation')} (within a puzzle {of(guide, 'within')}), the "
        f"residual {of(residual, 'correlation')} ({of(residual, 'within')}); token "
        f"entropy {of(entropy, 'solved')} and {of(entropy, 'unsolved')} nats"
    )


def draw(result: dict[str, Any], path: Path) -> None:
    """Exact accuracy over network calls, one panel per pick. It needs matplotlib."""
    points = result["points"]
    names = list(dict.fromkeys(point["search"] for point in points[1:]))
    with style.picture(path, 1, len(TITLES), size=(3.0 * len(TITLES), 3.0)) as (
        figure,
        axes,
    ):
        for axis, (pick, title) in zip(axes[0], TITLES.items(), strict=True):
            for index, name in enumerate(names):
                line = [points[0], *(p for p in points if p["search"] == name)]
                calls = [point["calls"] for point in line]
                shares = [100 * point["exact"][pick]["accuracy"] for point in line]
                look = style.line_style(index)
                axis.plot(calls, shares, marker="o", label=name, **look)
            axis.set(title=title, xlabel="network calls per puzzle")
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter("{x:g}")
        axes[0, 0].set_ylabel("exact accuracy, %")
        axes[0, 0].legend()
        low = min(axis.get_ylim()[0] for axis in axes[0])
        high = max(axis.get_ylim()[1] for axis in axes[0])
        for axis in axes[0]:
            axis.set_ylim(low, high)
        figure.suptitle(f"step {result['step']}, {points[0]['puzzles']} puzzles")
