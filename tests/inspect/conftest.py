# SPDX-License-Identifier: Apache-2.0
import pytest


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
