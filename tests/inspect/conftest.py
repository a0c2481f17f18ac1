# SPDX-License-Identifier: Apache-2.0
"""One browser for the tests of pages, and the figures that a test writes."""

import pytest

from tests.helpers.browser import CHROMIUM, Page


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if not CHROMIUM:
        pytest.skip("there is no Chromium here")
    page = Page(tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


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
