# SPDX-License-Identifier: Apache-2.0
"""Figures and pages are shown in a notebook, and written by a script."""

import sys
import types

import numpy as np
import pytest

from trm_jax.errors import SaveError
from trm_jax.inspect import notebook, style

pytest.importorskip("matplotlib")


@pytest.fixture
def shown(monkeypatch):
    """What IPython displays; it is a stand-in of the functions that are used."""
    found = []
    display = types.SimpleNamespace(
        display=found.append,
        HTML=lambda text: ("html", text),
        Image=lambda data, format, width: (format, data, width),
    )
    kernel = types.SimpleNamespace(kernel=object())
    shell = types.SimpleNamespace(get_ipython=lambda: kernel, version_info=(9, 0))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return found


@pytest.fixture
def script(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "figures"


def draw():
    with notebook.figure("line", 1, 2, size=(3.0, 1.0)) as (_, axes):
        assert axes.shape == (1, 2)
        axes[0, 0].plot([1, 2])


def test_a_notebook_shows_figures_and_pages(shown):
    draw()
    ((kind, png, width),) = shown
    assert (kind, width) == ("png", 288)
    assert png.startswith(b"\x89PNG")
    notebook.page("page", '<p class="a">1 < 2</p>', height=50)
    kind, text = shown[1]
    assert kind == "html"
    assert "height:50px" in text
    assert "&lt;p class=&quot;a&quot;&gt;1 &lt; 2&lt;/p&gt;" in text


def test_a_script_writes_them(script, tmp_path, capsys):
    draw()
    notebook.page("page", "<p>", height=50)
    (tmp_path / "other.png").write_bytes(b"as it is")
    notebook.picture(tmp_path / "other.png")
    notebook.write("more.txt", "text")
    files = sorted(path.name for path in script.iterdir())
    assert files == ["line.png", "more.txt", "other.png", "page.html"]
    assert (script / "page.html").read_text() == "<p>"
    assert (script / "other.png").read_bytes() == b"as it is"
    assert capsys.readouterr().out == "written to figures/more.txt\n"


def test_the_same_data_give_the_same_bytes(script):
    draw()
    first = (script / "line.png").read_bytes()
    draw()
    assert (script / "line.png").read_bytes() == first


def test_ipython_without_a_kernel_writes_files(shown, script, monkeypatch):
    terminal = types.SimpleNamespace(get_ipython=object, version_info=(9, 0))
    monkeypatch.setitem(sys.modules, "IPython", terminal)
    draw()
    assert (script / "line.png").exists()
    assert not shown


def test_a_folder_that_cannot_be_made_is_named(script):
    script.write_text("a file")
    with pytest.raises(SaveError, match="figures cannot be made"):
        draw()


def test_a_band_reaches_from_the_least_to_the_greatest_curve():
    with style.drawing(size=(2.0, 2.0)) as (_, ((axis,),)):
        style.draw_band(axis, [0, 1], [[1, 2], [3, 6]], color=style.COLORS[1])
        (line,), (band,) = axis.lines, axis.collections
        assert line.get_ydata().tolist() == [2, 4]
        ends = band.get_paths()[0].vertices
        assert np.unique(ends[ends[:, 0] == 1][:, 1]).tolist() == [2, 6]
        assert ends[ends[:, 0] == 0][:, 1].min() == 1
