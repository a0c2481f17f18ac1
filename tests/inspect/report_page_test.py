# SPDX-License-Identifier: Apache-2.0
"""The page of eval.py --report: whole, escaped, and complete in itself."""

import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest

from data_pipeline.drawing import Look
from trm_jax.inspect.report_figures import grid
from trm_jax.inspect.report_page import Failure, page

pytest.importorskip("matplotlib")
BIN = {"from": 0.9, "to": 1.0, "puzzles": 4, "probability": 0.97}
SHARE = {"exact_accuracy": 0.75, "exact_accuracy_95": [0.3, 0.95]}
STEPS = [
    {"steps": s, "exact_accuracy": s / 4, "cell_accuracy": 0.5, "halted": 0.1}
    for s in (1, 2, 3)
]
RESULT = {
    "step": 7,
    "puzzles": 4,
    **SHARE,
    "cell_accuracy": 0.91,
    "halt_accuracy": 0.5,
    "by_step": STEPS,
    "halting": {
        "first": [1, 2, 0],
        "never": 1,
        "mean_steps": 2.0,
        "exact_accuracy": 0.25,
    },
    "calibration": {"ece": 0.0123, "bins": [BIN | SHARE]},
    "by_rating": [{"from": 0, "to": 3, "puzzles": 4, "cell_accuracy": 1.0} | SHARE],
}
LOOK = Look((" ", "?", "#", "2"), (1, 2))
COLOURED = Look(("a", "b", "c", "d"), None, ("#ffffff",) * 3 + ("#abcdef",))
TOKENS = np.array([[1, 2], [3, 3]])
NONE = np.zeros((2, 2), bool)
FAILURE = Failure("puzzle 1", TOKENS, TOKENS, TOKENS, NONE, TOKENS == 3)
EVIL = "<img src=x onerror=alert(1)> & \"quoted\" 'too'"


class Tags(HTMLParser):
    """Counts names and checks that every element is closed in its order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.tags = [], Counter(), Counter()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.ids.update(value for name, value in attrs if name == "id")
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def made(title="run", failures=(FAILURE,), **facts):
    return page(title, RESULT, facts, failures, LOOK)


def test_the_page_is_well_formed_and_needs_no_other_file():
    text = made()
    tags = Tags(text)
    assert tags.tags["svg"] == 4 + 3  # figures and grids
    assert max(tags.ids.values()) == 1
    assert not re.search(r"<(script|link|img|iframe|object|style [^>]*src)", text)
    assert not re.search(r"https?://(?!www\.w3\.org/)|@import|url\((?!#)", text)
    used = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", text))
    assert used <= tags.ids.keys()


def test_the_page_has_the_numbers():
    text = made(config="SHA-256 abc")
    for shown in (
        "<b>75.00 %</b><span>exact</span><small>95 %: 30.00 to 95.00</small>",
        "<b>91.00 %</b><span>cells</span>",
        "25.00 % would be exact after 2.00 steps on average",
        "(ECE): 1.23 %",
        "<tr><th>config</th><td>SHA-256 abc</td></tr>",
        "Exact accuracy by rating",
    ):
        assert shown in text, shown


def test_what_users_write_is_escaped():
    text = made(EVIL, [FAILURE._replace(about=EVIL)], data=EVIL)
    assert "<img" not in text
    assert text.count("&lt;img") == 4  # title, heading, fact, failure
    Tags(text)
    assert "&lt;b&gt;" in grid(
        TOKENS, LOOK._replace(symbols=("<b>",) * 4), "", given=NONE, wrong=NONE
    )


def test_pictures_take_the_colours_of_the_page():
    text = made()
    figures = text[text.index('class="cards"') : text.index("<h2>Failures")]
    assert "var(--c0)" in figures
    assert not re.search(r"#[0-9a-f]{6};", figures.replace("#767676", ""))
    assert "DejaVu" not in text


def test_a_grid_marks_cells():
    text = grid(TOKENS, LOOK, "g", given=TOKENS == 2, wrong=TOKENS == 3)
    assert '<path d="M1 0h1v1h-1z" fill="#4a4f57"/>' in text
    assert '<path d="M0.06 1.06h.88v.88h-.88zM1.06 1.06h.88v.88h-.88z"' in text
    assert '<text x="1.5" y="1.5" class="wrong">2</text>' in text
    assert text.count("<text") == 2  # a filled cell and an unknown one have no text
    given = grid(TOKENS, LOOK, "g", given=TOKENS == 3, wrong=NONE)
    assert given.count('class="given">2</text>') == 2
    assert 'class="wrong"' not in given


def test_a_grid_in_colours_has_no_text():
    text = grid(TOKENS, COLOURED, "g", given=NONE, wrong=TOKENS == 3)
    assert '<path d="M0 1h1v1h-1zM1 1h1v1h-1z" fill="#abcdef"/>' in text
    assert "<text" not in text


def test_no_failure_is_said_so():
    assert "None of 4 puzzles was answered wrongly." in made(failures=())
