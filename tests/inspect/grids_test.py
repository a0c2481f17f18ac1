# SPDX-License-Identifier: Apache-2.0
"""Grids in figures: what is drawn for givens, changes, wrong digits and shades."""

import numpy as np
import pytest

from trm_jax.errors import ConfigError
from trm_jax.inspect import grids, style

pytest.importorskip("matplotlib")
# A Sudoku of 2x2 boxes; tokens are PAD, blank, 1 to 4.
QUESTION = [2, 1, 1, 1] + [1] * 12
ANSWER = [2, 3, 4, 5] + [1] * 12


def record(**changes):
    fixed = {
        "shape": [4, 4],
        "box": [2, 2],
        "symbols": ["?", ".", "1", "2", "3", "4"],
        "colours": None,
        "question": QUESTION,
        "given": [True] + [False] * 15,
        "solution": None,
        "steps": [{"tokens": ANSWER}, {"tokens": ANSWER[:3] + [4] + ANSWER[4:]}],
    }
    return fixed | changes


@pytest.fixture
def axis():
    with style.drawing(size=(2.0, 2.0)) as (_, ((one,),)):
        yield one


def digits(axis):
    return {(int(t.get_position()[1]), int(t.get_position()[0])): t for t in axis.texts}


def test_a_question_shows_its_givens_in_bold(axis):
    assert grids.draw_grid(axis, record()) is None
    assert {place: t.get_text() for place, t in digits(axis).items()} == {(0, 0): "1"}
    assert digits(axis)[0, 0].get_weight() == "bold"
    assert not axis.patches


def test_cells_that_changed_have_a_corner(axis):
    grids.draw_grid(axis, record(), 0)
    assert len(axis.patches) == 3  # since the question
    assert digits(axis)[0, 1].get_weight() == "normal"
    axis.clear()
    grids.draw_grid(axis, record(), 1)
    (corner,) = axis.patches  # since step 0
    assert corner.get_xy()[0].tolist() == [3, 0]


def test_wrong_cells_have_a_frame_if_the_solution_is_known(axis):
    grids.draw_grid(axis, record(), 0)
    assert not axis.lines
    grids.draw_grid(axis, record(solution=[2, 3, 5, 4] + [1] * 12), 0)
    assert sorted(int(line.get_xdata().min()) for line in axis.lines) == [2, 3]


def test_a_shade_has_a_scale_and_texts_that_stand_out(axis):
    shade = np.linspace(0, 2, 16)[::-1]
    image = grids.draw_grid(axis, record(), 0, shade=shade, most=2.0)
    assert image.get_clim() == (0, 2)
    np.testing.assert_array_equal(image.get_array(), shade.reshape(4, 4))
    colors = [digits(axis)[0, c].get_color() for c in range(4)]
    assert colors == ["white"] * 4
    axis.clear()
    grids.draw_grid(axis, record(), 0, shade=shade[::-1], most=2.0)
    assert {digits(axis)[0, c].get_color() for c in range(4)} == {"black"}


def test_cells_without_texts_and_their_mark(axis):
    grids.draw_cells(axis, np.ones(16), record(), most=1.0, mark=6)
    assert not axis.texts
    (dot,) = axis.lines
    assert dot.get_xydata().tolist() == [[2.5, 1.5]]


def test_tokens_with_colours_are_filled(axis):
    colours = [None, None, "#ff0000", None, None, None]
    grids.draw_grid(axis, record(colours=colours))
    (cell,) = axis.patches
    assert cell.get_facecolor()[:3] == (1, 0, 0)
    assert not axis.texts


def test_a_shade_of_another_length_is_refused(axis):
    with pytest.raises(ConfigError, match="15 numbers for 16 cells"):
        grids.draw_grid(axis, record(), shade=np.ones(15))
