# SPDX-License-Identifier: Apache-2.0
"""The kernels of a program are found, with their FLOPs, bytes, loops and groups."""

import importlib.util
import math

import jax
import jax.numpy as jnp
import pytest

from benchmarks import roofline
from benchmarks.kernels import (
    BANDWIDTH,
    FLOPS,
    GROUPS,
    Instruction,
    Kernel,
    kernels,
    scan_flops,
)
from benchmarks.step import sizes_of
from tests.helpers.runs import ROOT, call
from trm_jax.ops.ssd import kernels as kernels_of_ssd
from trm_jax.rules.base import innermost
from trm_jax.training.build import make_recipe
from trm_jax.training.config import read_run

PROGRAM = """\
%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused_update (s: f32[6,4,8], v: f32[4,8], i: s32[]) -> f32[6,4,8] {
  %s = f32[6,4,8]{2,1,0} parameter(0)
  %v = f32[4,8]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
  %row = f32[1,4,8]{2,1,0} bitcast(%v)
  %updated = f32[6,4,8]{2,1,0} dynamic-update-slice(%s, %row, %i, %zero, %zero)
  ROOT %same = f32[6,4,8]{2,1,0} bitcast(%updated)
}

%fused_read (s: f32[6,4,8], i: s32[]) -> (bf16[4,8], f32[4,8]) {
  %s = f32[6,4,8]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  %row = f32[1,4,8]{2,1,0} dynamic-slice(%s, %i, %zero, %zero), \
dynamic_slice_sizes={1,4,8}
  %flat = f32[4,8]{1,0} bitcast(%row)
  %narrow = bf16[4,8]{1,0} convert(%flat)
  ROOT %both = (bf16[4,8]{1,0}, f32[4,8]{1,0}) tuple(%narrow, %flat)
}

%fused_product (x: bf16[4,8], w: bf16[8,16]) -> bf16[4,16] {
  %x = bf16[4,8]{1,0} parameter(0)
  %w = bf16[8,16]{1,0} parameter(1)
  ROOT %dot = bf16[4,16]{1,0} dot(%x, %w), lhs_contracting_dims={1}, \
rhs_contracting_dims={0}
}

%fused_part (w: bf16[8,16]) -> f32[8,2] {
  %w = bf16[8,16]{1,0} parameter(0)
  %flat = bf16[8,16]{1,0} bitcast(%w)
  %wide = f32[8,16]{1,0} convert(%flat)
  ROOT %part = f32[8,2]{1,0} slice(%wide), slice={[0:8], [14:16]}
}

%fused_zeroes () -> f32[6,4,8] {
  %nought = f32[] constant(0)
  ROOT %wide = f32[6,4,8]{2,1,0} broadcast(%nought), dimensions={}
}

%body (p: (s32[], f32[6,4,8])) -> (s32[], f32[6,4,8]) {
  %p = (s32[], f32[6,4,8]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %s = f32[6,4,8]{2,1,0} get-tuple-element(%p), index=1
  %read = (bf16[4,8]{1,0}, f32[4,8]{1,0}) fusion(%s, %i), kind=kLoop, calls=%fused_read
  %x = bf16[4,8]{1,0} get-tuple-element(%read), index=0
  %v = f32[4,8]{1,0} get-tuple-element(%read), index=1
  %w = bf16[8,16]{1,0} constant({...})
  %own = bf16[4,16]{1,0} fusion(%x, %w), kind=kCustom, calls=%fused_product
  %lib = (bf16[4,16]{1,0}, s8[9]{0}) custom-call(%x, %w), \
custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":\
{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_\
dimensions":["0"]}}}
  %heads = (bf16[2,8,98,64]{3,1,2,0}, u8[0]{0}) custom-call(%x), \
custom_call_target="__cudnn$fmhaSoftmax"
  %part-start = ((bf16[8,16]{1,0}), f32[8,2]{1,0}, u32[]) fusion-start(%w), \
kind=kLoop, calls=%fused_part
  %part-done = f32[8,2]{1,0} fusion-done(%part-start)
  %scan = f32[4,8]{1,0} custom-call(%v), custom_call_target="mosaic_gpu_v2"
  %gated = (bf16[4,8]{1,0}, bf16[4,16]{1,0}) custom-call(%x, %w), \
custom_call_target="mosaic_gpu_v2", metadata={op_name="a/gated_product/mpmd_map"}
  %total = f32[4]{0} reduce(%v, %i), dimensions={1}, to_apply=%add
  %next = f32[6,4,8]{2,1,0} fusion(%s, %scan, %i), kind=kLoop, calls=%fused_update
  ROOT %t = (s32[], f32[6,4,8]{2,1,0}) tuple(%i, %next)
}

%condition (q: (s32[], f32[6,4,8])) -> pred[] {
  %q = (s32[], f32[6,4,8]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%q), index=0
  %bound = s32[] constant(6)
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

ENTRY %main () -> f32[6,4,8] {
  %zeroes = f32[6,4,8]{2,1,0} fusion(), kind=kLoop, calls=%fused_zeroes
  %start = s32[] constant(0)
  %t = (s32[], f32[6,4,8]{2,1,0}) tuple(%start, %zeroes)
  %loop = (s32[], f32[6,4,8]{2,1,0}) while(%t), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"6"}}
  %s = f32[6,4,8]{2,1,0} get-tuple-element(%loop), index=1
  ROOT %copied = f32[6,4,8]{0,1,2} copy(%s)
}
"""
STACK, ROW = 6 * 4 * 8 * 4, 4 * 8 * 4
HEADS = 2 * (2 * 8 * 98 * 64 + 4 * 8)  # results and operands
FACTORS = 2 * (4 * 8 + 8 * 16 + 4 * 16)


def test_kernels_are_found_with_their_loops_groups_flops_and_bytes():
    product = 2 * 4 * 8 * 16
    found = {one.name: one for one in kernels(PROGRAM)}
    expected = [
        Kernel("zeroes", "stacked", 1, 0, STACK),
        Kernel("read", "stacked", 6, 0, ROW + 4 + ROW // 2 + ROW),
        Kernel("own", "products", 6, product, FACTORS),
        Kernel("lib", "products", 6, product, FACTORS + 9),
        Kernel("heads", "attention", 6, 4 * 2 * 8 * 128**2 * 64, HEADS),
        Kernel("part-start", "other", 6, 0, 8 * 2 * (2 + 4)),
        Kernel("scan", "pallas", 6, 0, 2 * ROW),
        Kernel("gated", "pallas", 6, product, FACTORS + 2 * 4 * 8),
        Kernel("total", "other", 6, 0, ROW + 4 + 16),
        Kernel("next", "stacked", 6, 0, 4 + 2 * ROW),
        Kernel("less", "other", 6, 0, 4 + 4 + 1),
        Kernel("copied", "stacked", 1, 0, 2 * STACK),
    ]
    assert found == {one.name: one for one in expected}


BRANCHES = """\
%one (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %first = f32[8]{0} copy(%a)
}

%two (b: f32[8]) -> f32[8] {
  %b = f32[8]{0} parameter(0)
  ROOT %second = f32[8]{0} copy(%b)
}

ENTRY %main (i: s32[], x: f32[8]) -> f32[8] {
  %i = s32[] parameter(0)
  %x = f32[8]{0} parameter(1)
  ROOT %y = f32[8]{0} conditional(%i, %x, %x), CALLED
}
"""


@pytest.mark.parametrize(
    "called",
    [
        "branch_computations={%one, %two}",
        "true_computation=%one, false_computation=%two",
    ],
)
def test_each_branch_of_a_conditional_counts_as_often_as_the_others(called):
    found = {k.name: k.count for k in kernels(BRANCHES.replace("CALLED", called))}
    assert found == {"first": 0.5, "second": 0.5}


def test_a_kernel_takes_the_longer_of_products_and_bytes():
    assert Kernel("a", "other", 3, FLOPS, BANDWIDTH / 2).seconds == 3
    assert Kernel("b", "other", 2, FLOPS, 2 * BANDWIDTH).seconds == 4


def test_a_kernel_in_a_loop_of_unknown_length_is_an_error():
    unknown = PROGRAM.replace("known_trip_count", "other").replace("constant(6)", "%n")
    with pytest.raises(ValueError, match="unknown length"):
        list(kernels(unknown))


def test_milliseconds_and_gigabytes_stand_side_by_side_by_group():
    each = [
        Kernel("a", "products", 2, 79e9, 1e6),  # 0.1 ms each
        Kernel("b", "stacked", 3, 0, 4.3e9),  # 1 ms each
        Kernel("c", "stacked", 1, 0, 8.6e9),
    ]
    ms, hours, *by_group, in_all = roofline.as_line(each, 3_600_000).split()
    assert (ms, hours, in_all) == ("5.2", "5.2", "21.5")
    groups = {g: by_group[2 * i : 2 * i + 2] for i, g in enumerate(GROUPS)}
    assert groups["products"] == ["0.2", "0.0"]
    assert groups["stacked"] == ["5.0", "21.5"]
    assert groups["other"] == ["0.0", "0.0"]
    head = roofline.HEADER.split()
    assert head[4:14] == [word for g in GROUPS for word in (g, "GB")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--topology=v5e:2x4"], "--topology=v5e:2x4: the rates are those of an h200"),
        ([], "smoke.py has model.dtype = 'float32'; expected bfloat16"),
    ],
)
def test_other_chips_and_dtypes_are_refused(flags, message, capsys, monkeypatch):
    path = str(ROOT / "configs" / "smoke.py")
    monkeypatch.setattr("sys.argv", ["roofline.py", "--config", path, *flags])
    with pytest.raises(SystemExit) as exit_:
        roofline.main()
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("variant", ["mlp_t", "eqr", "urm", "flow", "wta"])
def test_the_rule_of_the_config_recomputes_as_asked(variant, monkeypatch):
    path = f"configs/sudoku_extreme.py:{variant}"
    flags = ["--config", path, "--remat", "dots:1", "none:6"]
    monkeypatch.setattr("sys.argv", ["roofline.py", *flags])
    rules = []

    def measure(path, topology, config, top):
        values = config.to_dict()
        rules.append(make_recipe(values, sizes_of(config), read_run(values)).rule)

    monkeypatch.setattr(roofline, "measure", measure)
    roofline.main()
    asked = [(innermost(r).remat, innermost(r).unroll) for r in rules]
    assert asked == [("dots", 1), ("none", 6)]


@pytest.mark.aot
def test_the_unrolled_cycle_moves_less_than_the_scanned_one():
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        pytest.skip("needs jax_cuda13_plugin")
    args = ("--config", "configs/smoke.py", "--remat", "none:1", "none:6")
    # Times have one decimal.
    args += ("--set", "train.batch_size=4096", "model.dtype=bfloat16")
    result = call("benchmarks/roofline.py", *args, timeout=600)
    assert result.returncode == 0, result.stderr
    _, scanned, unrolled = (line.split() for line in result.stdout.splitlines())
    assert float(unrolled[2]) < float(scanned[2])


def products(jaxpr, turns):
    """FLOPs of the products in a jaxpr, whose loops take so many turns."""
    total = 0.0
    for eqn in jaxpr.eqns:
        is_loop = eqn.primitive.name in ("scan", "while")
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += products(inner, turns) * (turns if is_loop else 1)
        if eqn.primitive.name == "dot_general":
            ((axis,), _), _ = eqn.params["dimension_numbers"]
            left, out = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
            total += 2.0 * math.prod(out) * left[axis]
    return total


def as_instruction(eqn):
    """A Pallas call as the line of an HLO module, with its operands."""

    def shape(v):
        return f"f32[{','.join(map(str, v.aval.shape))}]"

    operands = {f"a{i}": shape(v) for i, v in enumerate(eqn.invars)}
    body = {k: Instruction(v, "parameter", [], "") for k, v in operands.items()}
    results = ", ".join(map(shape, eqn.outvars))
    results = results if len(eqn.outvars) == 1 else f"({results})"
    return Instruction(results, "custom-call", [*operands], ""), body


@pytest.mark.parametrize(("heads", "groups", "length"), [(1, 1, 64), (6, 2, 150)])
def test_the_scans_kernels_count_their_products_in_whole_chunks(heads, groups, length):
    (b, p, n), chunks = (2, 16, 32), -(-length // 64)
    x, dt = jnp.ones((b, length, heads, p)), jnp.ones((b, length, heads))
    B = jnp.ones((b, length, groups, n))

    def both(x, dt, A, B):
        y, last = kernels_of_ssd.forward(x, dt, A, B, B, None, chunk_size=64)
        rest = None, y, last
        return y, kernels_of_ssd.backward(x, dt, A, B, B, *rest, chunk_size=64)

    traced = jax.make_jaxpr(both)(x, dt, -jnp.ones(heads), B)
    calls = [e for e in traced.eqns if e.primitive.name == "pallas_call"]
    assert len(calls) == 5  # y, the last state, states, their cotangents, gradients
    for i, eqn in enumerate(calls):
        # A loop of the last kernel goes through the heads of a group, those of the
        # others through the chunks, the last of which stands outside unless the state
        # after it is the result.
        turns = [chunks - 1, chunks, chunks - 1, chunks - 1, heads // groups][i]
        grid = math.prod(eqn.params["grid_mapping"].grid)
        once = products(eqn.params["jaxpr"], turns)
        assert scan_flops(*as_instruction(eqn)) == once * grid
