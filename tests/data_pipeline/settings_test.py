# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import pytest

from data_pipeline import settings
from data_pipeline.errors import DataError
from data_pipeline.settings import TASKS, DataSettings, task_module

SECTIONS = {"": DataSettings, **{name: task_module(name).Settings for name in TASKS}}
FIELDS = [(n, f) for n, s in SECTIONS.items() for f in dataclasses.fields(s)]


def test_the_defaults_hold_a_section_for_each_task():
    found = settings.defaults()
    assert {key for key, value in found.items() if isinstance(value, dict)} == {*TASKS}
    assert found["seed"] == 0
    assert found["sudoku"] == {"box_rows": 3, "box_cols": 3, "clues": (0, 0)}
    common, own = settings.read(found)
    assert (common, own) == (DataSettings(), SECTIONS["sudoku"]())


@pytest.mark.parametrize(("section", "field"), FIELDS)
def test_every_knob_has_a_meaning_and_a_default_in_its_range(section, field):
    assert len(field.metadata["doc"]) > 3
    assert isinstance(field.default, settings.get_origin(field.type) or field.type)
    assert settings._value(field.default, field, section) == field.default
    if field.type in (int, float):
        assert "low" in field.metadata


def test_a_config_that_was_stored_as_json_is_the_same():
    data = settings.defaults() | {"task": "maze", "source": "generator"}
    data["maze"] = {"side": 8, "min_moves": 3, "wall_share": (0, 0.5)}
    again = json.loads(json.dumps(data))
    assert settings.read(again) == settings.read(data)
    assert settings.read(again)[1].wall_share == (0.0, 0.5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"maze": {"side": 7}}, "data.maze.side = 7: data.task is 'sudoku', which"),
        ({"arc": {"allow_leaks": True}}, "data.arc.allow_leaks = True: data.task is"),
        ({"sudoku": {"clues": [5, 8]}}, r"clues = \(5, 8\): data.source is 'csv', wh"),
        (
            {"task": "maze", "source": "hub", "maze": {"min_moves": 9}},
            "data.maze.min_moves = 9: data.source is 'hub', which does not read it; "
            "leave it at its default, 109",
        ),
        ({"box_rows": 2}, r"data.box_rows: unknown key; .* data.sudoku.box_rows\?"),
        ({"side": 7}, "unknown key; did you mean data.maze.side or data.arc.side"),
        ({"sede": 1}, "data.sede: unknown key; expected one of task, source, train"),
        ({"sudoku": {"side": 9}}, "data.sudoku.side: unknown key; .* box_rows, box"),
        ({"task": "go"}, "data.task = 'go'; expected one of sudoku, maze, arc"),
        ({"task": None}, "data.task = None; expected a text"),
        ({"seed": True}, "data.seed = True; expected a whole number >= 0"),
        ({"seed": 2**63}, "data.seed = 9223372036854775808; expected"),
        ({"sudoku": {"clues": (1, 2, 3)}}, "clues = .*; expected a tuple of 2, each"),
        (
            {"maze": {"wall_share": (0.2, float("nan"))}},
            "wall_share .* a finite number",
        ),
        ({"maze": {"wall_share": 0.2}}, "wall_share = 0.2; expected a tuple of 2"),
        ({"arc": {"train_subsets": "training"}}, "expected a tuple, each a text"),
    ],
)
def test_what_is_wrong_or_would_not_be_read_is_named(data, message):
    with pytest.raises(DataError, match=message):
        settings.read(data)
