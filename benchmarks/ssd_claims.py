# SPDX-License-Identifier: Apache-2.0
"""What the project claims about the SSD operator, and what was measured."""

from typing import Any

import jax

from benchmarks.common import DTYPES, peaks, precision


def claims(rows: list[dict[str, Any]]) -> list[str]:
    """Lines that state each claim and its measured value, for forward+backward."""
    found: dict[Any, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if "ms" in row and row["direction"] != "forward":
            where = (row["dtype"], row["b"], row["l"])
            found.setdefault(where, {})[row["implementation"]] = row
    lines = []
    for (dtype, b, l), forms in found.items():
        place = f"at b={b}, l={l}, {dtype}, forward+backward"
        if jax.default_backend() == "gpu":
            lines += _gpu_claims(forms, dtype, place)
        else:
            lines += _cpu_claims(forms, place, l == 916 and dtype == "float32")
    return lines


def _cpu_claims(
    forms: dict[str, dict[str, Any]], place: str, claimed: bool
) -> list[str]:
    lines = []
    if {"recurrent", "chunked"} <= forms.keys():
        faster = forms["recurrent"]["ms"] / forms["chunked"]["ms"]
        wanted = " (at least 5 wanted)" if claimed else ""
        lines.append(f"chunked is {faster:.1f} x as fast as recurrent {place}{wanted}")
    if "chunked" in forms:
        share = 100 * forms["chunked"]["ratio"]
        wanted = " (at least 25 wanted)" if claimed else ""
        lines.append(
            f"chunked reaches {share:.0f} % of the matrix-product rate {place}{wanted}"
        )
    return lines


def _gpu_claims(forms: dict[str, dict[str, Any]], dtype: str, place: str) -> list[str]:
    lines = []
    if {"pallas", "chunked"} <= forms.keys():
        faster = forms["chunked"]["ms"] / forms["pallas"]["ms"]
        lines.append(f"pallas is {faster:.1f} x as fast as chunked {place}")
    with precision(dtype):
        peak = peaks(DTYPES[dtype][0])
    flop, byte = peak["matmul_flop_per_s"] / 1e9, peak["copy_byte_per_s"] / 1e9
    for name, row in forms.items():
        lines.append(
            f"{name} reaches {row['model_gflop_per_s']:.0f} of {flop:.0f} GFLOP/s and "
            f"{row['gbyte_per_s']:.0f} of {byte:.0f} GB/s {place}"
        )
    return lines
