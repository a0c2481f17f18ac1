# SPDX-License-Identifier: Apache-2.0
"""Published PyTorch weights: the numbers come out, and come back bit for bit."""

import json
import shutil
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from tests.helpers import golden_trm
from tests.helpers.golden_trm import GOLDEN
from tests.training import parity_test as parity
from trm_jax import get_config
from trm_jax.errors import CheckpointError, ConfigError
from trm_jax.evaluation.evaluate import make_eval_step
from trm_jax.rules.latents import Latents
from trm_jax.runtime.weights import on_one_device
from trm_jax.training.build import build
from trm_jax.training.sharding import make_mesh
from trm_jax.weights import all_config, exchange, published, torch_file
from trm_jax.weights.all_config_writer import from_config
from trm_jax.weights.task import with_task
from trm_jax.weights.tensors import Tensor, to_weights, weights_digest

SIZES = {"vocab_size": 7, "grid_shape": [4, 4], "num_puzzles": 5, "blank": -1}
FILES = {
    "trm_attn": GOLDEN / "torch" / "trm_attn" / "step_100",
    "trm_mlp_t": GOLDEN / "torch" / "trm_mlp_t" / "step_100",
    "hrm_attn": GOLDEN / "torch" / "hrm_attn" / "checkpoint",
}


@pytest.fixture(params=FILES)
def name(request):
    return request.param


def imported(name):
    bundle = published.read(FILES[name], sizes=SIZES)
    built = build(on_one_device(bundle.record["config"]), SIZES)
    return bundle, built, to_weights(bundle, built)


def test_every_bit_arrives_in_its_place(name):
    bundle, _, weights = imported(name)
    file = np.load(GOLDEN / f"{name}.npz")
    expected = golden_trm.split_weights(file, golden_trm.official_config(file))
    chex.assert_trees_all_equal(weights, expected)
    assert bundle.record["step"] == (0 if name == "hrm_attn" else 100)
    assert bundle.record["config"]["optim"]["ema_decay"] == (
        0.0 if name == "hrm_attn" else 0.999
    )
    without = bundle.record["provenance"]["no_counterpart"]
    assert "epochs" in without
    assert ("eval_interval" in without) == (name == "hrm_attn")


@pytest.mark.slow
def test_imported_weights_compute_the_published_numbers(name):
    """Training steps from the golden state, and a whole evaluation."""
    _, built, weights = imported(name)
    golden = parity.load(name)
    params, constants, table = weights
    golden = SimpleNamespace(**vars(golden) | {"recipe": built.recipe})
    golden.params, golden.constants, golden.table = params, constants, table
    rows = len(golden.batches[0].weight)
    golden.step = jax.jit(parity.partial(parity.loss_and_grads, built.recipe, rows))
    carry = golden.carry
    for i, batch in enumerate(golden.batches):
        result = parity.run_step(golden, carry, batch)
        parity.assert_step(golden, i, result, 1e-4)
        names = ("z_H", "z_L", "steps", "halted")
        y, z, steps, halted = (jnp.asarray(golden.file[f"train{i}/{k}"]) for k in names)
        carry = result[1]._replace(state=Latents(y, z), steps=steps, halted=halted)
    num_steps = int(golden.file["eval/num_steps"])
    eval_step = make_eval_step(built.recipe, make_mesh(1), num_steps=num_steps)
    batch = golden.batches[golden.file.get("eval/batch", 0)]
    found = eval_step(weights, batch, jnp.arange(rows))
    expected = golden.file["eval/preds_per_step"]
    np.testing.assert_array_equal(found.predictions, expected[-1])
    q, atol = golden.file["eval/q_halt_logits_per_step"], parity.EVALUATED[name]
    np.testing.assert_allclose(found.q_halt[0], q[0], atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(found.q_halt, q, atol=atol, rtol=atol)


def test_an_imported_file_is_written_back_bit_for_bit(name, tmp_path):
    bundle = published.read(FILES[name], sizes=SIZES)
    exchange.write(tmp_path / "st", bundle)
    again = exchange.read(tmp_path / "st")
    assert weights_digest(again) == weights_digest(bundle)
    assert published.write(tmp_path / "pt", again) == ["train.steps"]
    step = "step_0" if name == "hrm_attn" else "step_100"
    before, after = (torch_file.read(p) for p in (FILES[name], tmp_path / "pt" / step))
    assert [*before] == [*after]
    for key in before:
        a, b = before[key].read(), after[key].read()
        assert (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())
    read = published.read(tmp_path / "pt" / step, sizes=SIZES)
    assert weights_digest(read) == weights_digest(bundle)
    assert read.record["config"] == bundle.record["config"]
    if name != "hrm_attn":
        texts = [(p / "all_config.yaml").read_text() for p in (tmp_path / "pt",)]
        assert texts == [FILES[name].with_name("all_config.yaml").read_text()]


def settings(file="trm_attn", /, **arch):
    values = all_config.read(FILES[file].with_name("all_config.yaml"))
    for key, value in arch.items():
        values["arch"][key] = value
        if value is None:
            del values["arch"][key]
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "recursive_reasoning.trm_hier6@X"}, r"arch\.name = .*; expected one"),
        ({"L_layers": 0}, r"arch\.L_layers = 0; expected a whole number >= 1"),
        ({"L_layers": "2"}, r"arch\.L_layers = '2'; expected a whole number"),
        ({"no_ACT_continue": False}, r"no_ACT_continue = False; expected True"),
        ({"rms_norm_eps": 1e-6}, r"rms_norm_eps = 1e-06; expected 1e-05"),
        ({"loss": {"name": "losses@ACTLossHead"}}, r"arch\.loss = .*; expected losses"),
        ({"pos_encodings": "rope2d"}, r"pos_encodings = 'rope2d'; expected rope, le"),
        ({"forward_dtype": "float16"}, r"model\.dtype = 'float16'; expected one of"),
        ({"hidden_size": None}, r"arch\.hidden_size is missing"),
        ({"noise": 0.1}, r"arch\.noise has no counterpart here"),
        ({"puzzle_emb_ndim": 0}, r"puzzle_emb_ndim = 0; expected a whole number >= 1"),
    ],
)
def test_settings_that_would_change_the_numbers_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        all_config.to_config(settings(**change), "all_config.yaml")


def test_hrm_needs_networks_of_one_depth():
    with pytest.raises(ConfigError, match=r"arch\.H_layers = 4; expected L_layers = 2"):
        all_config.to_config(settings("hrm_attn", H_layers=4), "all_config.yaml")


@pytest.mark.parametrize("recipe", ["sudoku_extreme", "sudoku_extreme:attention"])
def test_a_recipe_goes_there_and_back(recipe):
    config = get_config(recipe).to_dict()
    values, lost = from_config(config, 97, "here")
    back, _ = all_config.to_config(json.loads(json.dumps(values)), "there")
    for section in ("model", "rule", "halting", "optim"):
        assert back[section] == config[section]
    assert lost == ["train.steps"]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("sudoku_extreme:mamba2_attn", r"model\.layers = \['mamba2', "),
        ("demo", r"model\.(swiglu|token_mlp)\.width = \d+, but the published code has"),
        ("sudoku_extreme:random_starts", r"rule\.trm\.starts = 'random', but the"),
        ("loops", r"rule\.name = 'loop', but the published layout holds only trm and"),
    ],
)
def test_models_that_the_published_code_has_not_are_refused(recipe, message):
    with pytest.raises(ConfigError, match=message):
        from_config(get_config(recipe).to_dict(), 52, "here")


@pytest.mark.parametrize(
    ("recipe", "change"),
    [
        ("sudoku_extreme", {"model.swiglu.inner_norm": True}),
        ("sudoku_extreme", {"model.token_mlp.inner_norm": True}),
        ("sudoku_extreme", {"model.positions": "rows_columns"}),
        ("sudoku_extreme", {"model.registers": 1}),
        ("sudoku_extreme:attention", {"model.attention.positions": "rope_2d"}),
    ],
)
def test_a_setting_that_the_published_code_has_not_is_refused(recipe, change):
    config = get_config(recipe)
    config.update_from_flattened_dict(change)
    ((name, value),) = change.items()
    with pytest.raises(ConfigError, match=f"{name} = {value!r}, but the published"):
        from_config(config.to_dict(), 97, "here")


def test_what_cannot_be_expressed_is_named():
    config = get_config("sudoku_extreme").to_dict()
    config["rule"]["trm"]["halt_weight"] = 0.25
    assert from_config(config, 97, "here")[1] == ["train.steps", "rule.trm.halt_weight"]


@pytest.mark.parametrize(
    ("tokens", "length", "task"),
    [
        (11, 97, ("sudoku", 3, 3)),
        (11, None, ("sudoku", 3, 3)),
        (6, 32, ("sudoku", 2, 2)),
        (6, None, ("maze", 30)),
        (6, 916, ("maze", 30)),
        (12, None, ("arc", 30)),
        (12, 116, ("arc", 10)),
    ],
)
def test_the_task_follows_from_the_shapes(tokens, length, task):
    config = get_config("sudoku_extreme").to_dict()
    tensors = {"params/embed_tokens": Tensor.of(np.zeros((tokens, 8)))}
    if length:
        tensors["params/net/0_token_mlp/gate_up"] = Tensor.of(np.zeros((length, 8)))
    data = with_task(config, tensors, "here")
    own = data[data["task"]]
    sides = (own["box_rows"], own["box_cols"]) if "box_rows" in own else (own["side"],)
    assert (data["task"], *sides) == task


def test_unknown_tasks_need_a_config():
    with pytest.raises(ConfigError, match="no task has 7 tokens and an unknown number"):
        published.read(FILES["trm_attn"])
    with pytest.raises(ConfigError, match="no task has 7 tokens and 16 cells; give a"):
        published.read(FILES["trm_mlp_t"])


def rewritten(tmp_path, change):
    """The attention file with other names of tensors."""
    from trm_jax.weights import torch_writer

    stored = torch_file.read(FILES["trm_attn"])
    shutil.copy(FILES["trm_attn"].with_name("all_config.yaml"), tmp_path)
    torch_writer.write(tmp_path / "step_100", change(stored), "archive")
    return published.read(tmp_path / "step_100", sizes=SIZES)


@pytest.mark.parametrize("prefix", ["", "inner.", "model.inner.", "module._orig_mod."])
def test_prefixes_do_not_matter(prefix, tmp_path):
    def change(stored):
        return {prefix + k.removeprefix(published.PREFIX): t for k, t in stored.items()}

    expected = published.read(FILES["trm_attn"], sizes=SIZES)
    assert weights_digest(rewritten(tmp_path, change)) == weights_digest(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: t for k, t in s.items() if "q_head.b" not in k}, "bias is miss"),
        (lambda s: s | {"model.inner.x": next(iter(s.values()))}, "x is not in such a"),
        (
            lambda s: s | {"H_init": next(iter(s.values()))},
            "name but for prefixes",
        ),
    ],
)
def test_other_tensors_are_refused(change, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        rewritten(tmp_path, change)


def test_settings_may_have_another_name_or_be_missing(tmp_path):
    file = tmp_path / "best.pt"
    shutil.copy(FILES["trm_attn"], file)
    with pytest.raises(ConfigError, match="all_config.yaml: not found; the settings"):
        published.read(file, sizes=SIZES)
    with pytest.raises(ConfigError, match="other.yaml cannot be read: .*No such file"):
        published.read(file, sizes=SIZES, settings=tmp_path / "other.yaml")
    shutil.copy(FILES["trm_attn"].with_name("all_config.yaml"), tmp_path / "best.yaml")
    assert published.read(file, sizes=SIZES).record["step"] == 0
    (tmp_path / "best.yaml").write_text("arch: [1")
    with pytest.raises(ConfigError, match="best.yaml cannot be read: while parsing"):
        published.read(file, sizes=SIZES)
    (tmp_path / "best.yaml").write_text(yaml.safe_dump({"lr": 1}))
    with pytest.raises(ConfigError, match="expected the settings of a published run"):
        published.read(file, sizes=SIZES)


def test_learned_positions_have_their_place():
    layers = ("attention", "swiglu")
    found = published.names(layers, {"L_level": "net"}, learned_positions=True)
    assert found["embed_pos.embedding_weight"] == "params/embed_positions"
    file = np.load(GOLDEN / "trm_learned_pos.npz")
    prefix = "weights/inner."
    stored = [k.removeprefix(prefix) for k in file if k.startswith(prefix)]
    both = published.names(layers * 2, {"L_level": "net"}, learned_positions=True)
    assert stored == [*both]
