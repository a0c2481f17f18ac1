# SPDX-License-Identifier: Apache-2.0
"""One HTML page about an evaluation: `eval.py --report`. It needs no other file."""

import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from trm_jax.inspect import report_figures as figures


class Failure(NamedTuple):
    """A puzzle that was answered wrongly; the grids are tokens `r c`."""

    about: str
    question: np.ndarray
    answer: np.ndarray
    truth: np.ndarray
    given: np.ndarray  # bool `r c`: cells that the question gives
    wrong: np.ndarray  # bool `r c`: cells whose answer differs from the truth


def page(
    title: str,
    result: Mapping[str, Any],
    facts: Mapping[str, Any],
    failures: Sequence[Failure],
    look: Any,
) -> str:
    """The page as text.

    `result` is the content of eval/step_N.json, `facts` are lines of the table at the
    top, `failures` are some wrong answers, and `look` says how grids are drawn (`Look`
    of the data pipeline). Raises ImportError without matplotlib.
    """
    attributes = [
        key.removeprefix("by_")
        for key in result
        if key.startswith("by_") and key != "by_step"
    ]
    halting, gap = result["halting"], 100 * result["calibration"]["ece"]
    cards = [
        _card(
            "Accuracy by supervision steps",
            figures.accuracy_by_step(result),
            "Exact: all cells of a puzzle are right. Halted: the model wants to stop.",
        ),
        _card(
            "When the model wants to halt",
            figures.halting_histogram(result),
            f"If each puzzle stopped there, {100 * halting['exact_accuracy']:.2f} % "
            f"would be exact after {halting['mean_steps']:.2f} steps on average.",
        ),
        _card(
            "Is the model as sure as it is right?",
            figures.reliability(result),
            f"Expected calibration error (ECE): {gap:.2f} %. Thin bars "
            "are 95 % intervals; the numbers below count the puzzles.",
        ),
    ]
    cards += [
        _card(
            f"Exact accuracy by {name}",
            figures.accuracy_by_attribute(result, name),
            "Thin bars are 95 % intervals.",
        )
        for name in attributes
    ]
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f'<div class="numbers">{"".join(_headlines(result))}</div>',
        _facts(facts),
        f'<div class="cards">{"".join(cards)}</div>',
        "<h2>Failures</h2>",
        _failures(failures, result, look),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(body)}\n</main>\n</body>\n</html>\n"
    )


_HEADLINES = {
    "exact_accuracy": "exact",
    "valid_accuracy": "valid by the rules",
    "voted_accuracy": "exact by votes",
    "voted_valid_accuracy": "valid by votes",
    "cell_accuracy": "cells",
    "halt_accuracy": "halting decisions right",
}


def _headlines(result: Mapping[str, Any]) -> list[str]:
    """The scores, with their 95 % intervals where there are some."""
    found = {key: label for key, label in _HEADLINES.items() if key in result}
    shown = []
    for key, label in found.items():
        note = ""
        if f"{key}_95" in result:
            low, high = result[f"{key}_95"]
            note = f"<small>95 %: {100 * low:.2f} to {100 * high:.2f}</small>"
        value = f"<b>{100 * result[key]:.2f} %</b>"
        shown.append(f"<div>{value}<span>{html.escape(label)}</span>{note}</div>")
    return shown


def _facts(facts: Mapping[str, Any]) -> str:
    rows = (
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f'<table class="facts">{"".join(rows)}</table>'


def _card(title: str, picture: str, note: str) -> str:
    text = f"<figcaption>{html.escape(note)}</figcaption>"
    return f"<figure><h2>{html.escape(title)}</h2>{picture}{text}</figure>"


def _failures(failures: Sequence[Failure], result: Mapping[str, Any], look: Any) -> str:
    if not failures:
        return f"<p>None of {result['puzzles']:,} puzzles was answered wrongly.</p>"
    text = (
        f"<p>{len(failures)} of the wrong answers, those of which the model was most "
        "sure. Wrong cells have a red frame.</p>"
    )
    return text + "".join(_failure(failure, look) for failure in failures)


def _failure(one: Failure, look: Any) -> str:
    grids = []
    for name in ("question", "answer", "truth"):
        tokens = getattr(one, name)
        none = np.zeros(tokens.shape, bool)
        given = one.given if tokens.shape == one.given.shape else none
        wrong = one.wrong if name == "answer" else none
        picture = figures.grid(tokens, look, name, given=given, wrong=wrong)
        grids.append(f"<figure>{picture}<figcaption>{name}</figcaption></figure>")
    head = f"<h3>{html.escape(one.about)}</h3>"
    return f'<section>{head}<div class="grids">{"".join(grids)}</div></section>'


_CSS = """
:root {
  --page: #f6f7f9; --card: #fff; --ink: #1c2024; --soft: #5d656e; --grid: #dfe3e8;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #e69f00;
  --c5: #56b4e9;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1d2125; --ink: #e6e9ec; --soft: #9aa4ae; --grid: #383f46;
    --c0: #4aa8e0; --c1: #f08440; --c2: #35c79a; --c3: #dd98bd; --c4: #f0b53a;
    --c5: #3a8fc0;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 .5rem; }
main > h2 { font-size: 1.25rem; margin: 2rem 0 .5rem; }
h3 { font-size: .95rem; font-weight: 600; margin: 0 0 .5rem; }
figure { margin: 0; min-width: 0; }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .4rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); }
.numbers { display: flex; flex-wrap: wrap; gap: .75rem; margin-bottom: 1rem; }
.numbers div, .cards > figure, section {
  background: var(--card); border: 1px solid var(--grid); border-radius: 8px;
}
.numbers div { padding: .6rem 1rem; flex: 1 1 9rem; }
.numbers b { display: block; font-size: 1.4rem; font-variant-numeric: tabular-nums; }
.numbers span, .numbers small { display: block; color: var(--soft); font-size: .85rem; }
.facts { border-collapse: collapse; margin-bottom: 1.5rem; font-size: .9rem; }
.facts th, .facts td { text-align: left; vertical-align: top; padding: .15rem 0; }
.facts th { color: var(--soft); font-weight: 400; padding-right: 1.25rem; }
.facts td { overflow-wrap: anywhere; }
.cards {
  display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
}
.cards > figure, section { padding: 1rem; }
section { margin-bottom: 1rem; }
.grids {
  display: grid; gap: 1rem; max-width: 58rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 13rem), 1fr));
}
.puzzle { max-width: 22rem; border-radius: 3px; }
.puzzle path.wrong { stroke: #d1242f; stroke-width: .09; }
.puzzle text {
  font-size: .62px; text-anchor: middle; dominant-baseline: central; fill: #2b5d8f;
}
.puzzle text.given { fill: #111; font-weight: 700; }
.puzzle text.wrong { fill: #d1242f; }
"""
