# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from trm_jax.errors import CheckpointError
from trm_jax.evaluation import parts as eval_parts
from trm_jax.evaluation.evaluate import EvalOutput, take_rows
from trm_jax.evaluation.parts import EvalParts

ABOUT = {"step": 3, "votes": 2, "weights": "ema"}
ROWS, STEPS = 11, 2


def output():
    rng = np.random.default_rng(0)
    return EvalOutput(
        predictions=rng.integers(0, 9, (ROWS, 4)).astype(np.uint8),
        q_halt=rng.normal(size=(STEPS, ROWS)).astype(np.float32),
        wants_halt=rng.random((STEPS, ROWS)) < 0.5,
        cells_right=rng.random((STEPS, ROWS)).astype(np.float32),
        all_right=rng.random((STEPS, ROWS)) < 0.5,
        cell_loss=rng.random((STEPS, ROWS)).astype(np.float32),
        residual=rng.random((STEPS, ROWS)).astype(np.float32),
        doubt=rng.random((STEPS, ROWS)).astype(np.float32),
        has_labels=rng.random(ROWS) < 0.5,
    )


def batches(first):
    """The rows from `first` on, four at a time."""
    for start in range(first, ROWS, 4):
        yield take_rows(output(), np.arange(start, min(start + 4, ROWS)))


def same(a, b):
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("flush_s", [0.0, 1e9])
@pytest.mark.parametrize("stop_after", range(4))
def test_an_evaluation_that_was_cut_short_goes_on_where_it_stopped(
    tmp_path, monkeypatch, flush_s, stop_after
):
    monkeypatch.setattr(eval_parts, "FLUSH_S", flush_s)
    first = EvalParts(tmp_path, ABOUT, writes=True)
    for count, rows in enumerate(batches(0)):
        if count == stop_after:
            break
        first.add(rows)
    again = EvalParts(tmp_path, ABOUT, writes=True)
    kept = min(4 * stop_after, ROWS) if flush_s == 0 else 0
    assert again.num_rows == kept
    for rows in batches(again.num_rows):
        again.add(rows)
    assert again.num_rows == ROWS
    same(again.finish(), output())
    done = EvalParts(tmp_path, ABOUT, writes=True)
    assert done.num_rows == ROWS
    same(done.finish(), output())


@pytest.mark.parametrize("change", [{"step": 4}, {"votes": 3}, {"more": None}])
def test_another_evaluation_shares_nothing(tmp_path, change):
    first = EvalParts(tmp_path, ABOUT, writes=True)
    first.add(output())
    first.finish()
    assert EvalParts(tmp_path, ABOUT | change, writes=True).num_rows == 0
    assert EvalParts(tmp_path, ABOUT, writes=True).num_rows == ROWS


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_part_is_named(tmp_path, damage):
    parts = EvalParts(tmp_path, ABOUT, writes=True)
    parts.add(output())
    parts.finish()
    (path,) = parts.folder.glob("*.npz")
    content = bytearray(path.read_bytes())
    content[100] ^= 255
    cut = {"cut": content[:-40], "flip": content, "empty": b""}
    path.write_bytes(cut[damage])
    with pytest.raises(
        CheckpointError, match=r"rows_000000000-\w+\.npz: does not match"
    ):
        EvalParts(tmp_path, ABOUT, writes=True)
    path.unlink()
    assert EvalParts(tmp_path, ABOUT, writes=True).num_rows == 0


def test_every_flipped_bit_of_a_part_shows(tmp_path):
    parts = EvalParts(tmp_path, ABOUT, writes=True)
    parts.add(output())
    parts.finish()
    (path,) = parts.folder.glob("*.npz")
    intact = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(len(intact), size=300):
        damaged = bytearray(intact)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="does not match the digest"):
            EvalParts(tmp_path, ABOUT, writes=True)


def test_rows_are_removed_when_their_report_is_written(tmp_path):
    parts = EvalParts(tmp_path, ABOUT, writes=True)
    parts.add(output())
    same(parts.finish(), output())
    parts.remove()
    assert list(tmp_path.iterdir()) == []
    assert EvalParts(tmp_path, ABOUT, writes=True).num_rows == 0


def test_a_process_that_does_not_write_reads_what_is_there(tmp_path):
    reader = EvalParts(tmp_path / "parts", ABOUT, writes=False)
    reader.add(output())
    same(reader.finish(), output())
    assert not (tmp_path / "parts").exists()
    writer = EvalParts(tmp_path / "parts", ABOUT, writes=True)
    writer.add(output())
    writer.finish()
    same(EvalParts(tmp_path / "parts", ABOUT, writes=False).finish(), output())
