# SPDX-License-Identifier: Apache-2.0
"""Errors of kernels, each with a tolerance: a part of benchmarks/gpu_suite.py."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import attention, ssd_error
from benchmarks.common import precision, random_array, relative_error
from benchmarks.ssd_error import Sizes, within
from trm_jax.ops.gated import gated_product, swiglu
from trm_jax.ops.gated_mosaic import kernel_refuses

LENGTHS = (82, 97, 916)  # of attention: Sudoku without and with a prefix, mazes and ARC
# The arguments of a gated unit, x and the weights of gate and up, by `over_rows`: those
# of SwiGLU, and those of MLP-t. Neither x fills its last block of 128.
GATED = {False: ((2 * 97, 512), 1536), True: ((97, 2 * 512), 512)}

Row = dict[str, Any]


def cases() -> Iterator[tuple[Row, Callable[[], Row]]]:
    """What is judged, and the function that does it.

    A function returns the errors, or it raises ArithmeticError if one exceeds its
    tolerance or is NaN. Without a GPU, XLA's forms of attention and of the gated units
    take the place of the kernels.
    """
    scans = [(name, "bfloat16") for name in ssd_error.kernels()]
    for (form, dtype), g in itertools.product([*scans, ("pallas", "float32")], (1, 2)):
        sizes, with_state = Sizes(2, 97 if g == 1 else 200, g), g == 2
        about = {"operator": "ssd", "form": form, "dtype": dtype}
        about |= {"l": sizes.l, "g": g, "initial_state": with_state}
        yield (
            about,
            partial(
                judged, dtype, ssd_error.errors, form, dtype, sizes, 64, with_state
            ),
        )
    form = "mosaic" if fuses() else "xla"
    for over_rows in GATED:
        about = {"operator": "gated", "form": form, "over_rows": over_rows}
        yield about, partial(judged, "bfloat16", gated_errors, form, over_rows)
    form = "cudnn" if jax.default_backend() == "gpu" else "xla"
    for l in LENGTHS:
        about = {"operator": "attention", "form": form, "l": l}
        yield about, partial(judged, "bfloat16", attention.errors, form, l)


def judged(dtype: str, errors: Callable[..., dict[str, float]], *args: Any) -> Row:
    """The errors as part of a row. Raises ArithmeticError if one is too large."""
    return {"errors": within(errors(*args), dtype)}


def fuses() -> bool:
    """Whether the kernel of the gated units runs here."""
    widths = [width for _, width in GATED.values()]
    refused = [kernel_refuses(width, jnp.dtype("bfloat16")) for width in widths]
    return ssd_error.is_hopper() and not any(refused)


def gated_errors(form: str, over_rows: bool) -> dict[str, float]:
    """Of a gated unit and its gradients in bfloat16, against float32."""
    shape, n = GATED[over_rows]
    terms = shape[0] if over_rows else shape[1]
    result = (n, shape[1]) if over_rows else (shape[0], n)
    x, gate_up, cotangent = (
        random_array(i, size, "bfloat16")
        for i, size in enumerate((shape, (terms, 2 * n), result))
    )
    args = x, gate_up * terms**-0.5, cotangent

    def program(run: Callable[..., jax.Array]) -> Any:
        def both(*args: jax.Array) -> Any:
            value, pull = jax.vjp(partial(run, over_rows=over_rows), *args[:2])
            return value, *pull(args[2])

        return jax.jit(both)

    found = program(gated_product if form == "mosaic" else unfused)(*args)
    with precision("float32_highest"):
        exact = program(unfused)(*(v.astype(jnp.float32) for v in args))
    pairs = zip(("y", "grad_x", "grad_gate_up"), found, exact, strict=True)
    return {name: relative_error(*pair) for name, *pair in pairs}


def unfused(x: jax.Array, gate_up: jax.Array, *, over_rows: bool) -> jax.Array:
    """`gated_product` without its kernel."""
    return swiglu(gate_up.T @ x, axis=0) if over_rows else swiglu(x @ gate_up)


def as_line(row: Row) -> str:
    """What was judged, and its errors."""
    about = ", ".join(f"{k} {v}" for k, v in row.items() if k != "errors")
    return f"{about}: " + ", ".join(f"{k} {e:.0e}" for k, e in row["errors"].items())
