# SPDX-License-Identifier: Apache-2.0
"""A fixture for files whose own fixtures train or evaluate by commands."""

import pytest

from tests.helpers.compiled_once import run_commands_here


@pytest.fixture(scope="module")
def commands_here():
    """Let all commands of a file run in this process, those of its fixtures too.

    A file asks for it with `pytestmark = pytest.mark.usefixtures("commands_here")`.
    Where single tests run commands, `run_commands_here(monkeypatch)` suffices.
    """
    with pytest.MonkeyPatch.context() as patch:
        run_commands_here(patch)
        yield
