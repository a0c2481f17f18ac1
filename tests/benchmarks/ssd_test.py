# SPDX-License-Identifier: Apache-2.0
"""The SSD benchmark: its report, its claims, and what it does with cases that fail."""

import json

import jax
import pytest

from benchmarks import gpu_suite, ssd, ssd_error, suite_parts
from benchmarks.common import attempt
from benchmarks.ssd_claims import claims
from benchmarks.ssd_error import Sizes
from tests.helpers.runs import call

GRADS = {"grad_x", "grad_dt", "grad_A", "grad_B", "grad_C"}
TIMED = {
    *ssd.CASE,
    *("ms", "fastest_ms", "model_flops", "model_gflop_per_s", "bytes", "gbyte_per_s"),
    *("matmul_gflop_per_s", "ratio", "temporary_bytes", "peak_bytes", "errors"),
}


def case(implementation="chunked", direction="forward+backward", b=1, l=8):
    values = (implementation, "float32", b, l, direction)
    return dict(zip(ssd.CASE, values, strict=True))


@pytest.mark.slow
def test_the_ssd_benchmark_reports_every_form(tmp_path):
    out = tmp_path / "ssd.json"
    flags = ["--shape", "1x20", "--repeats=1", "--chunk_size=16", f"--json={out}"]
    result = call("benchmarks/ssd.py", *flags)
    assert result.returncode == 0, result.stderr
    report = json.loads(out.read_text())
    assert report["chunk_size"] == 16
    rows = report["rows"]
    assert [(r["implementation"], r["direction"]) for r in rows] == [
        (name, direction)
        for name in ("recurrent", "chunked", "batched", "pallas")
        for direction in ("forward", "forward+backward")
    ]
    for row in rows[:6]:
        assert set(row) == TIMED
        assert row["fastest_ms"] > 0
    assert all("interpreted" in row["left_out"] for row in rows[6:])
    for row in rows:
        both = row["direction"] != "forward"
        assert set(row["errors"]) == {"y"} | (GRADS if both else set())
        assert max(row["errors"].values()) < 1e-5
    assert len(report["claims"]) == 2
    for line in report["claims"]:
        assert line in result.stdout


def test_work_is_counted_as_the_paper_counts_it():
    # Per token of one chunk (q = 2): 2 q n for the scores, 2 q p + 4 p n per head.
    scores, per_head = 2 * 2 * 128, 2 * 2 * 64 + 4 * 64 * 128
    expected = 2 * (scores + 16 * per_head)
    assert ssd.model_flops(Sizes(1, 2), 2, "forward") == expected
    assert ssd.model_flops(Sizes(1, 2), 2, "forward+backward") == 3 * expected


def test_bytes_are_those_of_inputs_and_outputs_once():
    how = ssd.Options(chunk_size=8, repeats=1)
    x, dt, B = 8 * 16 * 64, 8 * 16, 8 * 128
    args = x + dt + 16 + 2 * B
    forward = ssd.measure(case(direction="forward"), how)
    assert forward["bytes"] == 4 * (args + x)
    both = ssd.measure(case(), how)
    assert both["bytes"] == 4 * (args + x + x + args)


def test_kept_states_beyond_any_memory_are_left_out():
    reason = ssd.why_not(case("recurrent", b=768, l=97), interpret=False)
    assert "keeps a state per token" in reason
    assert ssd.why_not(case("recurrent", "forward", b=768), interpret=False) is None
    assert ssd.why_not(case("recurrent"), interpret=False) is None


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="these are the CPU's claims")
def test_claims_stand_beside_what_is_wanted():
    rows = [
        case("recurrent", l=916) | {"ms": 60.0, "ratio": 0.05},
        case("chunked", l=916) | {"ms": 10.0, "ratio": 0.3},
        case("chunked", "forward", l=916) | {"ms": 1.0, "ratio": 0.9},
        case("pallas", l=916) | {"failed": "out of memory"},
    ]
    place = "at b=1, l=916, float32, forward+backward"
    assert claims(rows) == [
        f"chunked is 6.0 x as fast as recurrent {place} (at least 5 wanted)",
        f"chunked reaches 30 % of the matrix-product rate {place} (at least 25 wanted)",
    ]


@pytest.mark.slow
def test_a_case_that_fails_is_a_row_with_its_message(monkeypatch):
    def measure(row, how):
        raise MemoryError("no room\nfor it")

    monkeypatch.setattr(ssd, "measure", measure)
    rows = list(ssd.compare(["chunked"], ["float32"], [Sizes(1, 8)], ssd.Options()))
    assert [row["failed"] for row in rows] == ["MemoryError: no room\nfor it"] * 2
    assert all("errors" in row for row in rows)
    assert "FAILED: MemoryError: no room" in ssd.as_line(rows[0])


def test_an_interrupt_is_not_a_failed_case():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt({}, interrupted)


def test_errors_notice_a_wrong_form(monkeypatch):
    right = ssd_error.ssd

    def wrong(x, dt, A, B, C, *, implementation, **kwargs):
        C = 1.01 * C if implementation == "chunked" else C
        return right(x, dt, A, B, C, implementation=implementation, **kwargs)

    monkeypatch.setattr(ssd_error, "ssd", wrong)
    found = ssd_error.errors("chunked", "float32", Sizes(1, 9), 8, initial_state=True)
    assert set(found) == {"y", "grad_initial_state", *GRADS}
    assert found["y"] == pytest.approx(0.01, rel=0.05)
    assert found["grad_C"] == pytest.approx(0.01, rel=0.05)


def test_the_scan_of_another_library_is_compared_where_it_is_installed():
    pytest.importorskip("jla", reason="jax-linear-attention is not installed")
    assert ssd_error.others() == ["jla"]
    with jax.numpy_rank_promotion("allow"):
        sizes = Sizes(2, 97, 2)
        found = ssd_error.errors("jla", "float32", sizes, 64, initial_state=True)
    assert max(found.values()) < 1e-5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shape", "8,97"], "'8,97' is not BATCHxLENGTH"),
        (["--shape", "0x97"], "'0x97' is not BATCHxLENGTH"),
        (["--chunk_size=48"], "pallas takes powers of two, not --chunk_size=48"),
        (["--repeats=0"], "'0' is not a whole number above 0"),
        (["--implementation", "cuda"], "invalid choice: 'cuda'"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
    ],
)
def test_bad_options_are_named(flags, message, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["ssd.py", *flags])
    with pytest.raises(SystemExit) as exit_:
        ssd.parse()
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_the_suite_goes_on_after_a_failure(tmp_path, capsys, monkeypatch):
    def measure(mixer, dtype, batch, steps, remat, mosaic):
        if mixer in suite_parts.MIXERS[::2]:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return {"ms_per_step": 1.0, "model_gflop_per_s": 1.0}

    def peaks():
        (path,) = tmp_path.iterdir()  # the file exists before anything is measured
        assert json.loads(path.read_text())["versions"]
        raise RuntimeError("no peak")

    monkeypatch.setattr(gpu_suite, "peaks", peaks)
    monkeypatch.setattr(gpu_suite, "matmul_error", dict)
    monkeypatch.setattr(suite_parts.step, "measure", measure)
    monkeypatch.setattr(suite_parts.step, "as_line", lambda row: row["mixer"])
    flags = ["--parts", "steps", "--batch=1", f"--out={tmp_path}"]
    monkeypatch.setattr("sys.argv", ["gpu_suite.py", *flags])
    with pytest.raises(SystemExit) as exit_:
        gpu_suite.main()
    assert exit_.value.code == 1
    (path,) = tmp_path.glob("gpu_suite_*_steps.json")
    report = json.loads(path.read_text())
    assert report["peaks"] == {"failed": "RuntimeError: no peak"}
    rows = report["steps"]
    assert [row["mixer"] for row in rows] == list(suite_parts.MIXERS)
    assert all("RESOURCE_EXHAUSTED" in row["failed"] for row in rows[::2])
    assert all(row["ms_per_step"] == 1.0 for row in rows[1::2])
    assert "share_of_peak" not in rows[1]
    assert "3 failed" in capsys.readouterr().out
