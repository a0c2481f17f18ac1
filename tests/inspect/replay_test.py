# SPDX-License-Identifier: Apache-2.0
"""The page of a record shows every step of it, and a wrong record is refused."""

import copy
import json
import math
import re

import numpy as np
import pytest

from trm_jax.errors import ConfigError
from trm_jax.inspect import html_page, replay

PAGES = html_page._PAGES
NAMED = {"sudoku": (4, 4), "arc": (5, 3)}


def record_of(task="sudoku", steps=6):
    """A made-up record of a few steps, which ends with the solution."""
    rows, columns = NAMED[task]
    rng, m = np.random.default_rng(0), rows * columns
    symbols = ["?", "", "1", "2", "3", "4"]
    solution = rng.integers(2, 6, m)
    given = rng.random(m) < (0.3 if task == "sudoku" else 0)
    question = np.where(given, solution, 1)
    before, made = question, []
    for k in range(1, steps + 1):
        tokens = np.where(rng.random(m) < 0.5, before, rng.integers(0, 6, m))
        tokens = solution if k == steps else tokens
        made.append(
            {
                "step": k,
                "tokens": tokens.tolist(),
                "confidence": rng.random(m).tolist(),
                "entropy": (rng.random(m) * math.log(6)).tolist(),
                "q_halt": float(k - 3),
                "halt_probability": 1 / (1 + math.exp(3 - k)),
                "changed": int((tokens != before).sum()),
                "valid": k == steps,
            }
        )
        before = tokens
    return {
        "format": 1,
        "task": task,
        "title": "</script><b>made up & small</b>",
        "model": {"parameters": "1,234", "layers": "<i>swiglu</i>"},
        "every": "step",
        "shape": [rows, columns],
        "box": [2, 2] if task == "sudoku" else None,
        "symbols": symbols,
        "colours": None
        if task == "sudoku"
        else [None, "white", "#000", "red", "#00f8"] + ["rgb(0, 200, 0)"],
        "question": question.tolist(),
        "given": given.tolist(),
        "solution": solution.tolist(),
        "votes": None,
        "steps": made,
    }


def opened(browser, tmp_path, record):
    path = tmp_path / "page.html"
    path.write_text(replay.page(record), encoding="utf-8")
    browser.show(width=1000)
    browser.open(path)
    browser.until("window.replay")
    return browser


def check_shown(browser, record, step):
    """Compare all that the page shows with step `step` of the record (0: question)."""
    browser.until(f"replay.player.step === {step}")
    texts, marks = browser.eval(
        "(() => { const c = [...document.querySelectorAll('#grid .cell')];"
        "return [c.map(e => e.textContent), c.map(e => [...e.classList])]; })()"
    )
    steps = [{"tokens": record["question"]}, *record["steps"]]
    tokens, before = steps[step]["tokens"], steps[max(step - 1, 0)]["tokens"]
    assert texts == [record["symbols"][token] for token in tokens]
    solution = record["solution"] or tokens
    for cell, names in enumerate(marks):
        assert ("changed" in names) == (tokens[cell] != before[cell])
        assert ("bad" in names) == (step > 0 and tokens[cell] != solution[cell])
        assert ("given" in names) == record["given"][cell]
        colour = (record["colours"] or [None] * 9)[tokens[cell]]
        assert ("coloured" in names) == (colour is not None)
    status = browser.eval("document.getElementById('status').textContent")
    if step:
        one = steps[step]
        assert status.startswith(f"Step {step}: {one['changed']} cell")
        sure = browser.eval("document.querySelector('#halting output').textContent")
        assert float(sure.split()[0]) / 100 == pytest.approx(
            one["halt_probability"], abs=6e-4
        )
        entropy = browser.eval("document.querySelector('#entropy output').textContent")
        assert float(entropy) == pytest.approx(np.mean(one["entropy"]), abs=1.1e-3)
        assert ("The answer is valid." in status) == one["valid"]
        assert f"{sum('bad' in names for names in marks)} cell" in status
    else:
        assert status == "The question."


def slide(browser, step):
    browser.eval(
        "(() => { const s = document.querySelector('input[type=range]');"
        f"s.value = {step}; s.dispatchEvent(new Event('input')); }})()"
    )


@pytest.mark.parametrize("task", NAMED)
def test_the_page_shows_every_step_of_a_record(browser, tmp_path, task):
    record = record_of(task)
    last = len(record["steps"])
    opened(browser, tmp_path, record)
    check_shown(browser, record, 0)
    for step in [*range(1, last + 1), 2, 0]:
        slide(browser, step)
        check_shown(browser, record, step)
    ways = ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", last)
    for key, step in (*ways, ("ArrowRight", last), ("Home", 0), ("ArrowLeft", 0)):
        browser.press(key)
        check_shown(browser, record, step)
    browser.eval("replay.player.speed.value = 'fast'")
    browser.press(" ")
    check_shown(browser, record, last)
    browser.until("!replay.player.playing")
    assert browser.eval("document.querySelectorAll('#title b, #facts i').length") == 0
    assert browser.eval("document.title") == record["title"]
    assert browser.requests == [(tmp_path / "page.html").as_uri()]
    assert browser.errors == []


def test_the_shades_and_the_curve_are_those_of_the_record(browser, tmp_path):
    record = record_of()
    opened(browser, tmp_path, record)
    slide(browser, 3)
    check_shown(browser, record, 3)
    step = record["steps"][2]
    by_kind = {
        "none": np.zeros(16),
        "confidence": 1 - np.array(step["confidence"]),
        "entropy": np.array(step["entropy"]) / math.log(len(record["symbols"])),
    }
    for kind, expected in by_kind.items():
        browser.click(f"input[value={kind}]")
        shown = browser.eval(
            "[...document.querySelectorAll('#grid .cell')].map("
            "c => Number(c.style.getPropertyValue('--v')))"
        )
        np.testing.assert_allclose(shown, expected, atol=6e-3)
    drawn = browser.eval("document.querySelector('#halting .curve').getAttribute('d')")
    points = np.array([p.split() for p in drawn[1:].split("L")], float)
    heights = 1 - points[:, 1] / 120
    expected = [one["halt_probability"] for one in record["steps"]]
    np.testing.assert_allclose(heights, expected, atol=1e-3)


def test_a_record_without_solution_and_verdict_has_no_wrong_cells(browser, tmp_path):
    record = record_of() | {"solution": None}
    for step in record["steps"]:
        step["valid"] = None
    opened(browser, tmp_path, record)
    browser.press("End")
    browser.until(f"replay.player.step === {len(record['steps'])}")
    assert browser.eval("document.querySelectorAll('#grid .bad').length") == 0
    assert browser.eval("document.getElementById('solution-block').hidden")
    status = browser.eval("document.getElementById('status').textContent")
    assert "valid" not in status
    assert "wrong" not in status
    for width in (320, 1200):
        browser.show(width=width)
        assert browser.eval("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r.pop("title"), "record: missing or unknown: title"),
        (lambda r: r.update(format=2), "record.format = 2; expected 1"),
        (lambda r: r.update(task="chess"), "record.task = 'chess'; expected one of"),
        (lambda r: r.update(shape=[4]), "record.shape has 1 values; expected 2"),
        (lambda r: r.update(box=[0, 2]), r"record.box\[0\] = 0; expected 1 or more"),
        (lambda r: r["given"].pop(), "record.given has 15 values; expected 16"),
        (
            lambda r: r.update(colours=["red"]),
            "record.colours has 1 values; expected 6",
        ),
        (lambda r: r.update(steps=[]), "record.steps is empty"),
        (
            lambda r: r["solution"].__setitem__(3, 6),
            r"record.solution\[3\] = 6; expected 0 to 5",
        ),
        (
            lambda r: r["steps"][1]["entropy"].__setitem__(0, "x"),
            r"record.steps\[1\].entropy\[0\] = 'x'; expected another type",
        ),
        (
            lambda r: r["steps"][2].update(changed=99),
            r"steps\[2\].changed = 99, but \d+ cells differ from the step before",
        ),
        (lambda r: r["steps"][0].update(valid="yes"), r"steps\[0\].valid is a str"),
        (lambda r: r["steps"][0].update(q_halt=math.nan), "data of replay.html"),
    ],
)
def test_a_wrong_record_is_refused_with_its_place(edit, message):
    record = copy.deepcopy(record_of())
    edit(record)
    with pytest.raises(ConfigError, match=message):
        replay.page(record)


def test_the_command_writes_the_page_or_says_what_is_wrong(tmp_path, capsys):
    source, out = tmp_path / "record.json", tmp_path / "page.html"
    source.write_text(json.dumps(record_of()))
    assert replay.main([str(source), str(out)]) == 0
    assert out.read_text(encoding="utf-8") == replay.page(record_of())
    for text, message in (("{", "is not JSON"), ("[]", "record is a list")):
        source.write_text(text)
        with pytest.raises(SystemExit) as exit:
            replay.main([str(source), str(out)])
        assert exit.value.code == 2
        assert message in capsys.readouterr().err


def test_a_long_record_of_large_grids_makes_a_small_page():
    record = record_of("arc", steps=2)
    sizes, step = {"shape": [30, 30], "given": [False] * 900}, record["steps"][0]
    of_cell = {
        name: step[name][:1] * 900 for name in ("tokens", "confidence", "entropy")
    }
    question = of_cell["tokens"]
    steps = [{**step, **of_cell, "changed": 0}] * 512
    large = record | sizes | {"question": question, "solution": None, "steps": steps}
    assert len(replay.page(large)) < 100_000


def test_text_can_be_read_on_every_background_and_shade():
    css = (PAGES / "pages.css").read_text()
    assert css.count("calc(var(--v) * 60%)") == 2

    def luminance(colour):
        linear = [
            v / 12.92 if v < 0.04 else ((v + 0.055) / 1.055) ** 2.4
            for v in colour / 255
        ]
        return np.dot([0.2126, 0.7152, 0.0722], linear)

    schemes = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        named = re.findall(r"--([\w-]+): #(\w{6});", scheme)
        colours = {n: np.array([*bytes.fromhex(h)], float) for n, h in named}
        shades = {
            shade: 0.6 * colours[shade] + 0.4 * colours["paper"]
            for shade in ("confidence", "entropy")
        }
        pairs = [(text, shades[s]) for text in ("ink", "answer", "bad") for s in shades]
        texts = ("ink", "muted", "answer", "bad", "good")
        pairs += [(text, colours[b]) for text in texts for b in ("ground", "paper")]
        pairs.append(("on-accent", colours["accent"]))
        for text, background in pairs:
            low, high = sorted(map(luminance, (colours[text], background)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, background)
