# SPDX-License-Identifier: Apache-2.0
"""Records of traces: what is drawn for each task, and how cells are marked."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from data_pipeline.tasks import task_of
from tests.helpers.untrained import model_of
from trm_jax import get_config
from trm_jax.inspect.gif import write_gif
from trm_jax.inspect.replay_record import as_record, marks
from trm_jax.inspect.trace import Trace

PUZZLE = "1.....3..4.....2"


def trace_of(question, answers, vocab, blank=1):
    """A trace whose decoded answers are these tokens, of a square."""
    side = math.isqrt(len(question))
    logits = np.eye(vocab)[np.asarray(answers)]
    count = len(answers)
    return Trace(
        every="step",
        question=np.asarray(question),
        given=(question != blank) & (blank >= 0),
        grid_shape=(side, side),
        steps=np.arange(1, count + 1),
        start={},
        states={},
        logits=logits,
        q_halt=np.zeros(count),
        loss="softmax",
    )


def task(name, **sections):
    data = get_config(name).data
    for key, values in sections.items():
        data[key].update(values)
    return task_of(data.to_dict())


def test_a_trace_becomes_plain_numbers(tmp_path):
    model = model_of()
    trace = model.trace(PUZZLE, steps=3)
    voted = model.solve(PUZZLE, steps=3, votes=4)
    record = as_record(trace, model.task, title="t", model={}, voted=voted)
    again = json.loads(json.dumps(record))
    assert again == record
    assert record["shape"] == [4, 4]
    assert record["box"] == [2, 2]
    assert [at["tokens"] for at in record["steps"]] == trace.tokens.tolist()
    assert record["given"] == [c != "." for c in PUZZLE]
    assert record["steps"][0]["changed"] == sum(trace.tokens[0] != trace.question)
    assert record["votes"]["tokens"] == voted.tokens.tolist()
    assert record["votes"]["forms"] == 4
    sure = [at["confidence"] for at in record["steps"]]
    np.testing.assert_allclose(sure, trace.confidence, atol=1e-4)
    write_gif(record, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 4


def test_marks_name_givens_changes_and_errors():
    of_sudoku = task("smoke")
    question = np.array([2, 1, 1, 1] * 4)
    solution = np.array([2, 3, 4, 5] * 4)
    first = solution.copy()
    first[[0, 1]] = 5, 1
    record = as_record(
        trace_of(question, [first, solution], 6),
        of_sudoku,
        title="t",
        model={},
        solution=solution,
    )
    assert marks(record, -1)[:2] == ["given", ""]
    assert marks(record, 0)[:5] == ["wrong", "wrong", "changed", "changed", "given"]
    assert marks(record, 1)[:4] == ["given", "changed", "right", "right"]


def test_the_clues_of_a_nonogram_stay_those_of_the_question():
    of_nonogram = task("nonogram")
    question = of_nonogram.parse("1 1/5/1/1/1|1/2/4/1/1 1")
    answers = np.full((1, len(question)), 3)
    record = as_record(
        trace_of(question, answers, 16), of_nonogram, title="t", model={}
    )
    cells = np.reshape(record["steps"][0]["tokens"], (8, 8))
    asked = question.reshape(8, 8)
    np.testing.assert_array_equal(cells[3:, 3:], 3)
    np.testing.assert_array_equal(cells[:3], asked[:3])
    np.testing.assert_array_equal(cells[:, :3], asked[:, :3])


def test_grids_of_arc_are_cropped_to_what_they_hold():
    of_arc = task("arc_small")
    question = of_arc.parse([[1, 2, 3], [4, 5, 6]])
    answer = np.full_like(question, 7)  # colours everywhere but in column 4
    answer.reshape(12, 12)[:, 4:] = 0
    record = as_record(trace_of(question, [answer], 12), of_arc, title="t", model={})
    assert record["shape"] == [12, 4]
    assert record["question"][:8] == [3, 4, 5, 0, 6, 7, 8, 0]
    assert len(record["question"]) == len(record["steps"][0]["tokens"]) == 12 * 4
    assert record["colours"][3] != record["colours"][4]


@pytest.mark.parametrize("name", ["smoke", "maze_small", "nonogram", "arc_small"])
def test_every_token_of_a_task_has_a_symbol(name):
    one = task(name)
    vocab = 12 if name == "arc_small" else one.spec().vocab_size
    look = one.look()
    assert len(look.symbols) == vocab
    assert all(len(symbol) == 1 for symbol in look.symbols)
    assert look.colours is None or len(look.colours) == vocab
