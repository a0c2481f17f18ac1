# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from data_pipeline.errors import DataError
from data_pipeline.maze.grid import MazeShape, encode
from data_pipeline.spec import PuzzleSpec


def test_tokens_are_the_published_ones():
    tokens = encode("# SGo")
    assert tokens.tolist() == [1, 2, 3, 4, 5]
    assert tokens.dtype == np.uint8


def test_sizes():
    assert MazeShape(30).num_cells == 900
    assert MazeShape(30).spec == PuzzleSpec(6, (30, 30), blank=2)


@pytest.mark.parametrize("side", [-1, 0, 1, 63])
def test_sides_out_of_range_are_refused(side):
    with pytest.raises(DataError, match=rf"maze\.side = {side}; expected 2 to 62"):
        MazeShape(side)
