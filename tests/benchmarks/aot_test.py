# SPDX-License-Identifier: Apache-2.0
"""The AOT benchmark: parsing collectives in HLO, predicting and compiling for pods."""

import importlib.util
import json
import sys
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import aot, predict
from benchmarks.hlo import Collective, collectives
from benchmarks.work import Work, work_of
from tests.helpers.runs import ROOT, call
from trm_jax.training.build import build, make_recipe
from trm_jax.training.config import read_run
from trm_jax.training.sharding import make_mesh

SMOKE = str(ROOT / "configs" / "smoke.py")
PROGRAM = """\
HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%inner_body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[], f32[4]{0}) parameter(0)
  %part = f32[4]{0} get-tuple-element(%p), index=1
  %inner = f32[4]{0} all-reduce(%part), channel_id=5, replica_groups={{0,1},{2,3}}, \
to_apply=%add, metadata={op_name="jit(step)/while/inner" stack_frame_id=1}
}

%inner_condition (q: (s32[], f32[4])) -> pred[] {
  %q = (s32[], f32[4]{0}) parameter(0)
  %bound = s32[]{:T(128)} constant(3)
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

%outer_body (r: (s32[], f32[4])) -> (s32[], f32[4]) {
  ROOT %while.1 = (s32[], f32[4]{0}) while(%r), condition=%inner_condition, \
body=%inner_body
}

%outer_condition (s: (s32[], f32[4])) -> pred[] {
  ROOT %wrapped = pred[] fusion(%s), kind=kLoop, calls=%wrapped_compare
}

%start (u: f32[48,512]) -> (f32[48,512], f32[96,512]) {
  %gather.1 = f32[96,512]{1,0:T(8,128)} all-gather(%u), channel_id=7, \
replica_groups=mesh['axis_0'=2,'axis_1'=1] {'axis_0'}, dimensions={0}
  ROOT %custom = (f32[48,512], f32[96,512]) custom-call(%gather.1), \
custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.2 (v: f32[48,512], w: f32[8]) -> f32[8] {
  %gather.2 = f32[96,512]{1,0:T(8,128)} all-gather(%v), channel_id=7, \
replica_groups=mesh['axis_0'=2,'axis_1'=1] {'axis_0'}, dimensions={0}
}

%all-reduce-scatter.3 (x: f32[8,2]) -> f32[2,2] {
  %whole = f32[8,2]{1,0} all-reduce(%x), channel_id=8, replica_groups=[1,4]<=[4], \
to_apply=%add
  ROOT %slice = f32[2,2]{1,0} dynamic-slice(%whole, %o, %z), dynamic_slice_sizes={2,2}
}

ENTRY %main (z: f32[4]) -> f32[4] {
  %z = f32[4]{0} parameter(0)
  %while.2 = (s32[], f32[4]{0}) while(%t), condition=%outer_condition, \
body=%outer_body, backend_config={"known_trip_count":{"n":"5"},"known_init_step":{}}
  %f.1 = (f32[48,512], f32[96,512]) fusion(%g), kind=kCustom, calls=%start
  %f.2 = f32[8]{0} fusion(%f.1, %h), kind=kCustom, calls=%async_collective_fusion.2
  %f.3 = f32[2,2]{1,0} fusion(%i), kind=kCustom, calls=%all-reduce-scatter.3
  %ag = ((bf16[3]{0}, pred[1]{0}), (bf16[6]{0}, pred[2]{0})) all-gather-start(%j, %k), \
channel_id=9, replica_groups={}, dimensions={0}
  %ag.done = (bf16[6]{0}, pred[2]{0}) all-gather-done(%ag), metadata={op_name="no"}
  %rs = ((f32[8,2]{1,0}), f32[2,2]{1,0}) reduce-scatter-start(%l), channel_id=10, \
replica_groups={{0,1,2,3}}, dimensions={0}, to_apply=%add
  %rs.done = f32[2,2]{1,0} reduce-scatter-done(%rs)
  %ar.0 = ((f32[5]{0}), f32[5]{0}) all-reduce-start(%o), channel_id=12, to_apply=%add
  %ar.1 = f32[9]{0} all-reduce-start(%p), channel_id=12, to_apply=%add
  %ar.0.done = f32[5]{0} all-reduce-done(%ar.0)
  %ar.1.done = f32[9]{0} all-reduce-done(%ar.1)
  %both = (s32[7]{0}, /*index=1*/f32[]) all-reduce(%m, %n), channel_id=11, to_apply=%add
  ROOT %get = f32[4]{0} get-tuple-element(%while.2), index=1
}
"""
PODS = [
    ("libtpu", "v5e:2x4"),
    ("libtpu", "v6e:2x4"),
    ("jax_cuda13_plugin", "h200:8"),
]


def test_collectives_are_found_with_their_loops_groups_and_bytes():
    found = {one.arrays: one for one in collectives(PROGRAM, devices=4)}
    f = "f32"
    expected = [
        Collective("all-reduce", ((f, (4,)),), 2, 15, "jit(step)/while/inner"),
        Collective("all-gather", ((f, (96, 512)),), 2, 1, ""),
        Collective("reduce-scatter", ((f, (2, 2)),), 4, 1, ""),
        Collective("all-gather", (("bf16", (6,)), ("pred", (2,))), 4, 1, ""),
        Collective("all-reduce", (("s32", (7,)), (f, ())), 4, 1, ""),
        Collective("all-reduce", ((f, (5,)),), 4, 1, ""),
        Collective("all-reduce", ((f, (9,)),), 4, 1, ""),
    ]
    assert found == {one.arrays: one for one in expected}
    assert len(collectives(PROGRAM)) == 8  # `found` merges two reduce-scatters
    assert [one.nbytes for one in expected] == [16, 4 * 96 * 512, 64, 14, 32, 20, 36]
    assert expected[3].elements == 6


def test_a_collective_in_a_loop_of_unknown_length_is_not_counted_as_one():
    with pytest.raises(ValueError, match="unknown length"):
        collectives(PROGRAM.replace("known_trip_count", "other"))


@pytest.mark.parametrize(
    ("written", "group"),
    [
        ("{{0,1,2},{3,4,5}}", 3),
        ("[2,8]<=[4,4]T(1,0)", 8),
        ("mesh['a'=4,'b'=2,'c'=8], device_ids=([8,8]T(1,0)) {'a','b'}", 8),
        ("{}", 64),
    ],
)
def test_the_size_of_a_group_is_read_in_every_form(written, group):
    text = f"""ENTRY %main (x: f32[2]) -> f32[2] {{
  ROOT %y = f32[2]{{0}} all-reduce(%x), replica_groups={written}, to_apply=%f
}}
"""
    (one,) = collectives(text, devices=64)
    assert one.group == group


def test_collectives_of_all_branches_count():
    branch = """%{} (x: f32[2]) -> f32[2] {{
  ROOT %y = f32[2]{{0}} collective-permute(%x), source_target_pairs={{{{0,1}}}}
}}
"""
    text = f"""{branch.format("one")}{branch.format("two")}
ENTRY %main (x: f32[2]) -> f32[2] {{
  ROOT %z = f32[2]{{0}} conditional(%i, %x, %x), branch_computations={{%one, %two}}
}}
"""
    found = collectives(text)
    assert sum(one.count for one in found) == 2


def compiled(fn, *shapes):
    mesh = make_mesh(2)
    rows = NamedSharding(mesh, P("data"))
    args = [jax.ShapeDtypeStruct(s, jnp.float32, sharding=rows) for s in shapes]
    mapped = partial(jax.shard_map, mesh=mesh, in_specs=P("data"), check_vma=False)
    return jax.jit(mapped(fn, out_specs=P("data"))).lower(*args).compile().as_text()


def test_collectives_of_a_compiled_program():
    whole = partial(lax.all_gather, axis_name="data", tiled=True)

    def fn(x):
        def body(x, _):
            return jnp.sin(lax.psum(x, "data")), None

        x, _ = lax.scan(body, x, length=5)
        return lax.psum_scatter(whole(x), "data", tiled=True)

    found = {one.kind: one for one in collectives(compiled(fn, (8, 3)), devices=2)}
    counts = {kind: (one.count, one.nbytes, one.group) for kind, one in found.items()}
    assert counts == {
        "all-reduce": (5, 4 * 3 * 4, 2),
        "all-gather": (1, 8 * 3 * 4, 2),
        "reduce-scatter": (1, 8 * 3 * 4, 2),
    }


@pytest.mark.slow
@pytest.mark.optimized
def test_what_is_predicted_to_be_exchanged_is_what_the_compiler_exchanges():
    config = aot.config_of(SMOKE, ["mesh.data=2"])
    sizes = aot.sizes_of(config)
    built = build(config.to_dict(), sizes)
    like = built.state_like
    program = built.train_step.lower(like, like.carry.batch).compile().as_text()
    found = sum(one.count * one.nbytes for one in collectives(program, devices=2))
    work = work_of(config, sizes, 2, "chunked")
    assert work.summed + work.gathered == pytest.approx(found, rel=0.05)


@pytest.mark.slow
def test_predictions_follow_the_number_of_devices():
    config = aot.config_of(SMOKE, ["train.batch_size=768"])
    sizes = aot.sizes_of(config)
    one, eight, many = (work_of(config, sizes, n, "chunked") for n in (1, 8, 256))
    assert one.summed == one.gathered == 0
    assert one.flops == pytest.approx(8 * eight.flops)
    assert eight.summed == many.summed > 0
    chip = predict.CHIPS["v5e"]
    single, ring, torus = (
        predict.predict(work, chip, n)
        for work, n in ((one, 1), (eight, 8), (many, 256))
    )
    assert single["exchange"] == 0
    assert 0 < ring["exchange"] < torus["exchange"]
    assert single["best"] <= single["worst"]
    assert torus["limit"] == "products"  # the network is tiny: 3 rows a chip


def test_kernels_of_a_compiled_program_take_the_place_of_flops_and_bytes():
    work = Work(8, 1e12, 1e9, 10, summed=0.0, gathered=0.0, dtype="bfloat16")
    chip = predict.CHIPS["h200"]
    found = predict.predict(work._replace(seconds=1e-3), chip, 1)
    assert (found["best"], found["limit"]) == (1e-3, "kernels")
    assert found["worst"] == pytest.approx(1e12 / 989e12 / 0.15)
    assert predict.predict(work, chip, 1)["best"] == pytest.approx(2 * 1e12 / 989e12)
    few = predict.predict(work._replace(seconds=1e-6), chip, 1)
    assert (few["best"], few["limit"]) == (pytest.approx(10 * 10e-6), "products")


def test_what_was_compiled_for_one_device_is_not_compiled_again(
    tmp_path, monkeypatch, capsys
):
    row = {"config": SMOKE, "topology": "h200:1", "set": [], "kernel_seconds": 0.25}
    failed = {"config": SMOKE, "topology": "h200:1", "set": [], "failed": "no memory"}
    (tmp_path / "aot.json").write_text(json.dumps([row, failed]))
    monkeypatch.setattr(predict, "kernel_seconds", lambda *_: 0.125)
    line = (
        f"x --chip h200 --devices 1 2 --config {SMOKE} --compiled={tmp_path}/aot.json"
    )
    monkeypatch.setattr(sys, "argv", line.split())
    predict.main()
    one, two = [
        line for line in capsys.readouterr().out.splitlines() if "smoke" in line
    ]
    assert " 250.0 to 250.0 " in one
    assert one.endswith("kernels")
    assert " 125.0 to 125.0 " in two


def test_settings_are_read_and_micro_batches_made():
    changes = ["train.batch_size=96", "rule.trm.remat=dots", "optim.lr=1e-3"]
    config = aot.config_of(f"{SMOKE}", changes)
    assert (config.train.batch_size, config.eval.batch_size) == (96, 96)
    assert (config.rule.trm.remat, config.optim.lr) == ("dots", 1e-3)
    assert [aot.split(96, most) for most in (96, 95, 48, 33, 1)] == [1, 2, 2, 3, 96]


def test_a_case_that_fails_is_told_and_the_exit_code_is_1(
    tmp_path, monkeypatch, capsys
):
    out = tmp_path / "rows.json"
    args = ("--topology", "v9:2", "--config", SMOKE, "--json", str(out))
    monkeypatch.setattr(sys, "argv", ["aot.py", *args])
    with pytest.raises(SystemExit) as ended:
        aot.main()
    assert ended.value.code == 1
    (row,) = json.loads(out.read_text())
    assert "expected v5e:AxB, v6e:AxB or h200:N" in row["failed"]
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.aot
@pytest.mark.parametrize(("module", "topology"), PODS)
def test_a_step_is_compiled_for_a_pod(module, topology, tmp_path):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}")
    out = tmp_path / "rows.json"
    layers = "model.layers=('mamba2','attention','swiglu')"
    changes = ("train.batch_size=64", "model.token_mlp.width=0", layers)
    args = ("--topology", topology, "--config", SMOKE, "--json", str(out))
    result = call("benchmarks/aot.py", *args, "--set", *changes, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    (row,) = json.loads(out.read_text())
    assert row["mesh"] == {"data": 8, "fsdp": 1}
    assert row["rows_per_device"] == 8
    assert 0 < row["memory_bytes_per_device"]["sum"] < 1e9
    moved = sum(total["bytes"] for total in row["collectives"].values())
    assert 4 * 10_000 < moved < 4 * 100_000  # gradients move, activations do not


def test_the_rematerialisation_of_the_innermost_rule_is_reported():
    config = aot.config_of(SMOKE, [*RULE, "rule.name=wta", "rule.wta.inner=urm"])
    config.rule.urm.remat = "full"
    assert config.rule.trm.remat != "full"
    sizes = aot.sizes_of(config)
    rule = make_recipe(config.to_dict(), sizes, read_run(config.to_dict())).rule
    assert aot.innermost(rule).remat == "full"


# Of the smoke config, what belongs to another rule, or to networks with MLP-t.
RULE = ("rule.trm.h_cycles=3", "rule.trm.l_cycles=6")
LAYERS = ("model.token_mlp.width=0", "model.layers=('OPERATOR','swiglu')")
OTHERS = {
    "hrm": ("hrm.py:smoke",),
    "loop, mamba1_both": ("loops.py:encoded-mamba1_both-4x4",),
    "loop, mamba2": ("loops.py:feedback-mamba2-4x4",),
    "wta": ("smoke.py", "rule.name=wta"),
    **{
        name: ("smoke.py", *RULE, f"rule.name={name}")
        for name in ("one_latent", "eqr", "urm", "flow")
    },
    **{
        name: ("smoke.py", LAYERS[0], LAYERS[1].replace("OPERATOR", name))
        for name in ("mamba1", "mamba1_backward")
    },
}


@pytest.mark.aot
@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize(("module", "topology"), PODS)
def test_other_rules_and_operators_are_compiled_for_a_pod(
    module, topology, case, tmp_path
):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}")
    out = tmp_path / "rows.json"
    config, *changes = OTHERS[case]
    path = str(ROOT / "configs" / config)
    args = ("--topology", topology, "--config", path, "--json", str(out))
    changes = ["train.batch_size=64", *changes]
    result = call("benchmarks/aot.py", *args, "--set", *changes, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    (row,) = json.loads(out.read_text())
    assert row["rows_per_device"] == 8
    assert 0 < row["memory_bytes_per_device"]["sum"] < 1e9
