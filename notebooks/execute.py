# SPDX-License-Identifier: Apache-2.0
"""Run the notebooks and write NAME.ipynb, with its outputs, from NAME.py.

python notebooks/execute.py [NAME.py ...]    (`make notebooks` runs all of them)

The same sources give the same file: cells are numbered, and no times are recorded.
"""

import argparse
import tempfile
from pathlib import Path

import jupytext
import nbclient
import nbformat

FOLDER = Path(__file__).parent


def executed(source: Path) -> nbformat.NotebookNode:
    """The notebook of a script with `# %%` cells, after a run in an empty folder."""
    book = jupytext.read(source, fmt="py:percent")
    for number, cell in enumerate(book.cells, start=1):
        cell["id"] = f"cell-{number}"
        cell["metadata"] = {}
    book.metadata = {
        "jupytext": {"formats": "ipynb,py:percent"},
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(
            book,
            coalesce_streams=True,
            record_timing=False,
            timeout=None,
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    book.metadata["language_info"] = {"name": "python"}
    return book


def main() -> None:
    """Execute the notebooks that the command line names, or all."""
    parser = argparse.ArgumentParser(prog="python notebooks/execute.py")
    parser.add_argument("source", nargs="*", type=Path)
    for source in parser.parse_args().source or sorted(FOLDER.glob("[0-9]*.py")):
        nbformat.write(executed(source), source.with_suffix(".ipynb"))
        print(f"{source.with_suffix('.ipynb')} written")


if __name__ == "__main__":
    main()
