# SPDX-License-Identifier: Apache-2.0
"""Errors of kernels are judged by a tolerance, and a wrong kernel is noticed."""

import math

import jax.numpy as jnp
import pytest

from benchmarks import attention, numerics, ssd_error
from benchmarks.ssd_error import Sizes


@pytest.mark.parametrize("error", [0.031, math.nan])
def test_an_error_beyond_its_tolerance_is_a_failure(error, monkeypatch):
    assert ssd_error.within({"y": 0.03}) == {"y": 0.03}
    with pytest.raises(ArithmeticError, match=f"beyond 0.03.*{error}"):
        ssd_error.within({"y": 0.001, "grad_x": error})
    with pytest.raises(ArithmeticError, match="beyond 0.0001"):
        ssd_error.within({"y": 0.001}, "float32_highest")
    time_of = {"ms": 1.0, "tflop_per_s": 1.0}
    monkeypatch.setattr(attention, "measure", lambda case, repeats: dict(time_of))
    monkeypatch.setattr(attention, "errors", lambda name, l: {"out": error})
    for row, line in attention.compare(["xla"], [Sizes(2, 8)], 1):
        assert f"'out': {error}" in row["failed"]
        assert row["ms"] == 1.0
        assert "FAILED: ArithmeticError" in line
    for about, judge in numerics.cases():
        if about["operator"] == "attention":
            with pytest.raises(ArithmeticError):
                judge()


def test_every_kernel_is_judged():
    found = [about for about, _ in numerics.cases()]
    assert [about["operator"] for about in found] == (
        ["ssd"] * 4 + ["gated"] * 2 + ["attention"] * 3
    )
    assert {about["l"] for about in found if "l" in about} == {82, 97, 200, 916}


@pytest.mark.parametrize("over_rows", [False, True])
def test_errors_of_the_gated_units_notice_a_wrong_kernel(over_rows, monkeypatch):
    size = ((24, 40), 16) if over_rows else ((40, 24), 16)
    monkeypatch.setitem(numerics.GATED, over_rows, size)
    found = numerics.gated_errors("xla", over_rows)
    assert set(found) == {"y", "grad_x", "grad_gate_up"}
    assert 0 < max(found.values()) < 0.02

    def wrong(x, gate_up, *, over_rows):
        return jnp.bfloat16(1.1) * numerics.unfused(x, gate_up, over_rows=over_rows)

    monkeypatch.setattr(numerics, "gated_product", wrong)
    found = numerics.gated_errors("mosaic", over_rows)
    assert all(0.08 < error < 0.12 for error in found.values())
