# SPDX-License-Identifier: Apache-2.0
"""One browser for the tests of pages, one short run, the figures that a test writes."""

import pytest

from tests.helpers.browser import CHROMIUM, Page
from tests.helpers.compiled_once import share_compilations
from tests.helpers.runs import short_config
from trm_jax import api


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if not CHROMIUM:
        pytest.skip("there is no Chromium here")
    page = Page(tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The workdir of 20 steps on 4x4 Sudoku, with 8 test puzzles."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    with pytest.MonkeyPatch.context() as patch:
        share_compilations(patch)
        api.run(short_config().to_dict(), folder)
    return folder


@pytest.fixture
def drawn(monkeypatch):
    """The figures that a test writes, in order."""
    figure = pytest.importorskip("matplotlib.figure").Figure
    figures, save = [], figure.savefig

    def saved(self, *args, **kwargs):
        figures.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(figure, "savefig", saved)
    return figures
