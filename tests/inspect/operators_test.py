# SPDX-License-Identifier: Apache-2.0
"""What operators hold inside: maps and states give their outputs, and cost nothing."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.untrained import model_of
from trm_jax.errors import ConfigError
from trm_jax.inspect.operators import inside, network_calls, states
from trm_jax.model.sublayers import attention, mamba1, mamba2

PUZZLE = "1.....3..4.....2"
LAYERS = ("attention", "mamba2_both", "mamba1_four", "swiglu", "token_mlp")
SCANS = [
    ("1_mamba2_both", "forward"),
    ("1_mamba2_both", "backward"),
    ("2_mamba1_four", "forward"),
    ("2_mamba1_four", "backward"),
    ("2_mamba1_four", "column"),
    ("2_mamba1_four", "column_backward"),
]
# The positions in the order in which a scan reads them; the grid is 4 x 4.
ROWS, COLUMNS = np.arange(17), np.append(0, 1 + np.arange(16).reshape(4, 4).T)
READ = {"forward": ROWS, "backward": ROWS[::-1]}
READ |= {"column": COLUMNS, "column_backward": COLUMNS[::-1]}


def all_operators(config):
    config.model.update(layers=LAYERS, d_model=16)
    config.model.attention.num_heads = 2
    config.model.mamba2.update(head_dim=8, d_state=4, num_groups=2, chunk_size=4)
    config.model.mamba1.d_state = 4


def _noted(call, seen, *args, **kwargs):
    out = call(*args, **kwargs)
    seen.append((args, out))
    return out


def _by_direction(args, out):
    """Both directions of Mamba-2 are one scan, as further heads and groups."""
    axes = (2, 2, 0, 2, 2, 2, 1)
    parts = [
        np.split(np.asarray(v), 2, axis=axis)
        for v, axis in zip((*args, *out), axes, strict=True)
    ]
    return [(each[:5], each[5:]) for each in zip(*parts, strict=True)]


@pytest.fixture(scope="module")
def case():
    """A model of all operators, the input of a call, and the scans and v in it."""
    model = model_of(edit=all_operators)
    hidden = jax.random.normal(jax.random.key(0), (2, 17, 16))
    seen = {"attend": [], "ssd": [], "selective_scan": []}
    bound = model.bound()
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (attention, "attend"),
            (mamba2, "ssd"),
            (mamba1, "selective_scan"),
        ):
            noted = partial(_noted, getattr(module, name), seen[name])
            patch.setattr(module, name, noted)
        output, seen = jax.jit(lambda hidden: (bound.net(hidden), seen))(hidden)
    seen["ssd"] = [one for call in seen["ssd"] for one in _by_direction(*call)]
    found = inside(model, hidden)
    np.testing.assert_allclose(found.output, output, atol=1e-5)
    return model, hidden, found, seen


@pytest.mark.slow
def test_attention_maps_times_v_are_the_output_of_attention(case):
    _, _, found, seen = case
    (one,), (((_, _, v), out),) = found.attention, seen["attend"]
    assert one.layer == "0_attention"
    assert one.maps.shape == (2, 2, 17, 17)
    np.testing.assert_allclose(one.maps.sum(-1), 1, atol=1e-12)
    assert (one.maps > 0).all()
    product = np.einsum("bhlm,bmhk->blhk", one.maps, np.float64(v))
    np.testing.assert_allclose(product, out, atol=1e-5)


def test_the_states_of_a_scan_times_C_are_its_output(case):
    seen = case[3]
    assert [len(seen[name]) for name in ("ssd", "selective_scan")] == [2, 4]
    assert states(seen["ssd"][0][0]).shape == (2, 17, 4, 8, 4)
    assert states(seen["selective_scan"][0][0]).shape == (2, 17, 32, 4)
    for name in ("ssd", "selective_scan"):
        for args, (y, last) in seen[name]:
            found, C = np.float64(states(args)), np.float64(args[4])
            if name == "ssd":
                of_head = np.repeat(C, 2, axis=2)
                product = np.einsum("blhpn,blhn->blhp", found, of_head)
            else:
                product = np.einsum("bldn,bln->bld", found, C)
            np.testing.assert_allclose(product, y, atol=1e-5)
            np.testing.assert_allclose(found[:, -1], last, atol=1e-5)
            assert abs(product).max() > 1e-3


def plain_states(args):
    """The recurrence in float64, token by token and in the order of the scan."""
    x, dt, A, B, _ = map(np.float64, args)
    state, found = 0, []
    for t in range(x.shape[1]):
        if A.ndim == 1:
            b = np.repeat(B[:, t], len(A) // B.shape[2], axis=1)
            decay = np.exp(dt[:, t] * A)[..., None, None]
            new = (dt[:, t, :, None] * x[:, t])[..., None] * b[:, :, None]
        else:
            decay = np.exp(dt[:, t, :, None] * A)
            new = (dt[:, t] * x[:, t])[..., None] * B[:, t, None]
        state = decay * state + new
        found.append((state, decay))
    return [np.stack(each, axis=1) for each in zip(*found, strict=True)]


def test_norms_and_decays_stand_at_the_positions_of_their_tokens(case):
    _, _, found, seen = case
    assert [(scan.layer, scan.direction) for scan in found.scans] == SCANS
    calls = {"mamba2": iter(seen["ssd"]), "mamba1": iter(seen["selective_scan"])}
    for scan in found.scans:
        args, _ = next(calls[scan.layer[2:8]])
        state, decay = plain_states(args)
        norm = np.sqrt((state**2).mean(tuple(range(3, state.ndim))))
        place = np.argsort(READ[scan.direction])
        np.testing.assert_allclose(scan.norms, norm[:, place], rtol=1e-4)
        decay = decay.reshape(scan.decays.shape)
        np.testing.assert_allclose(scan.decays, decay[:, place], rtol=1e-6)
        assert ((scan.decays > 0) & (scan.decays < 1)).all()


def test_hidden_states_end_in_the_output_of_the_network(case):
    _, _, found, _ = case
    assert list(found.hidden) == [f"{i}_{name}" for i, name in enumerate(LAYERS)]
    np.testing.assert_array_equal(found.hidden["4_token_mlp"], found.output)
    assert not np.allclose(found.hidden["0_attention"], found.output, atol=0.1)


def test_nothing_is_computed_for_what_nobody_collects(case, monkeypatch):
    model, hidden, _, _ = case

    def programs():
        traced = jax.jit(model.bound().net).trace(hidden)
        return str(traced.jaxpr), traced.lower().as_text()

    found = programs()
    assert "custom_jvp" in found[0]  # it is the network's
    for answer in (False, True):  # a collection that does nothing, closed and open
        monkeypatch.setattr(nn.Module, "sow", lambda *_, answer=answer, **__: answer)
        assert programs() == found


@pytest.mark.parametrize("rule", ["trm", "hrm"])
def test_the_inputs_of_the_calls_are_those_of_the_paper(rule):
    model = model_of(rule=rule, l_cycles=2)
    x = model.embed(PUZZLE)
    y, z = (jnp.broadcast_to(model.constants[name], x.shape) for name in "yz")
    calls = network_calls(model, y, z, x)
    names = ["net"] * 3 if rule == "trm" else ["low", "low", "high"]
    assert [name for name, _ in calls] == names
    outputs = [inside(model, hidden, name).output for name, hidden in calls]
    inputs = z + (y + x), outputs[0] + (y + x), y + outputs[1]
    for (_, hidden), expected in zip(calls, inputs, strict=True):
        np.testing.assert_allclose(hidden, expected, atol=1e-4)
    after = model.cycle(y, z, x)
    np.testing.assert_allclose(after[0], outputs[2], atol=1e-4)
    assert network_calls(model, y, z, x)[0][1].shape == (1, 17, 32)
    unknown = "" if rule == "hrm" else "high"
    allowed = "low, high" if rule == "hrm" else "net"
    with pytest.raises(ConfigError, match=f"network '{unknown}'; .* one of {allowed}"):
        inside(model, x, unknown)
