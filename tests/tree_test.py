# SPDX-License-Identifier: Apache-2.0
"""What holds for every file of the source tree."""

import ast
import re
from collections import deque

from tests.helpers.runs import ROOT

FOLDERS = ("trm_jax", "data_pipeline", "configs", "benchmarks")
FILES = {
    str(path.relative_to(ROOT)): path.read_text()
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
}
# Any other file of fewer than 25 lines should be part of another file.
MAY_BE_SHORT = {
    "configs/sudoku_4x4.py": "a config edits another one",
    "data_pipeline/errors.py": "the error that all of the pipeline may raise",
    "data_pipeline/prepared/maze_hard/names.py": "read without tensorflow_datasets",
    "data_pipeline/prepared/sudoku_extreme/names.py": "likewise",
}


def imports(name):
    """Yield (module, level) for every import in a file; level is the number of dots."""
    for node in ast.walk(ast.parse(FILES[name])):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level
            if not node.level:
                names = (alias.name for alias in node.names)
                yield from ((f"{node.module}.{each}", 0) for each in names)


def imported_roots(name):
    return {module.split(".")[0] for module, level in imports(name) if not level}


def test_the_tree_is_the_one_that_these_tests_mean():
    assert len(FILES) > 80
    assert all(any(name.startswith(folder) for name in FILES) for folder in FOLDERS)


def test_no_file_is_long_and_a_short_one_has_a_reason():
    lengths = {name: len(text.splitlines()) for name, text in FILES.items()}
    assert {name: n for name, n in lengths.items() if n > 250} == {}
    short = {n for n in FILES if lengths[n] < 25 and not is_list_of_exports(n)}
    assert short == set(MAY_BE_SHORT)


def test_no_script_style_or_template_of_a_page_is_long():
    folder = ROOT / "trm_jax" / "inspect" / "pages"
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    assert {"trm.js", "pages.css", "playground.html", "replay.html"} <= texts.keys()
    assert {name for name, text in texts.items() if text.count("\n") > 250} == set()
    licence = "SPDX-License-Identifier: Apache-2.0"
    heads = {name: text.split("\n")[:2] for name, text in texts.items()}
    assert {n for n, head in heads.items() if licence not in "".join(head)} == set()


def test_shipped_weights_name_no_folder_of_a_machine():
    files = [*(ROOT / "weights").glob("*/config.json")]
    assert len(files) > 4
    assert {f.parent.name for f in files if '": "/' in f.read_text()} == set()


def is_list_of_exports(name):
    """Whether a file is an `__init__.py` that only exports names."""
    kinds = ast.Expr | ast.ImportFrom | ast.Assign
    body = ast.parse(FILES[name]).body
    return name.endswith("/__init__.py") and all(isinstance(n, kinds) for n in body)


def test_every_file_begins_with_its_licence_and_a_docstring_of_one_line():
    first = {name: text.partition("\n")[0] for name, text in FILES.items()}
    assert set(first.values()) == {"# SPDX-License-Identifier: Apache-2.0"}
    docs = {name: ast.get_docstring(ast.parse(text)) for name, text in FILES.items()}
    head = re.compile(r"[^\n]+[.?](\n\n|$)")
    assert [name for name, doc in docs.items() if not head.match(doc or "")] == []


def test_gradients_are_stopped_in_one_file():
    stops = {name for name, text in FILES.items() if "stop_gradient" in text}
    assert stops == {"trm_jax/rules/recursion.py"}


def test_flags_and_config_dicts_stay_in_the_commands():
    users = {
        name
        for name in FILES
        if name.startswith("trm_jax/")
        and imported_roots(name) & {"absl", "ml_collections"}
    }
    assert users
    assert {u for u in users if not u.startswith("trm_jax/commands/")} == set()


def test_the_data_pipeline_imports_itself_relatively():
    names = [name for name in FILES if name.startswith("data_pipeline/")]
    assert any(level for name in names for _, level in imports(name))
    assert not [name for name in names if "data_pipeline" in imported_roots(name)]


def test_no_file_postpones_its_annotations():
    # jaxtyping would see strings and check nothing.
    assert not [name for name in FILES if ("__future__", 0) in imports(name)]


def test_the_rule_is_three_imports_away_from_the_command():
    names = {
        name[:-3].replace("/", ".").removesuffix(".__init__"): name for name in FILES
    }
    distance, waiting = {"trm_jax.commands.train": 0}, deque(["trm_jax.commands.train"])
    while waiting:
        module = waiting.popleft()
        for target, level in imports(names[module]):
            if not level and target in names and target not in distance:
                distance[target] = distance[module] + 1
                waiting.append(target)
    assert distance["trm_jax.rules.trm"] <= 3
