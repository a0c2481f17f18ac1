# SPDX-License-Identifier: Apache-2.0
"""Attention agrees with its formula; on CUDA it is cuDNN's kernels where they fit."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import demo
from tests.ops.cases import cuda_context
from trm_jax.errors import ConfigError
from trm_jax.model.config import ModelConfig
from trm_jax.ops.attention import attend, cudnn_takes

SIZES = {"vocab_size": 8, "grid_shape": [6, 6], "num_puzzles": 1, "blank": 1}


@pytest.fixture
def cudnn(monkeypatch):
    """JAX lowers calls of cuDNN 9.10 for an H200, which this machine may lack."""
    from jax._src.cudnn import fused_attention_stablehlo as module

    monkeypatch.setattr(module, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(module, "check_compute_capability", lambda _: True)
    monkeypatch.setattr(module, "is_cuda_compute_capability_equal", lambda _: False)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.02)]
)
def test_attention_is_the_softmax_of_scaled_scores_times_values(dtype, tolerance):
    drawn = np.random.default_rng(0).normal(size=(3, 2, 5, 2, 4))
    q, k, v = (jnp.asarray(part, dtype) for part in drawn)
    wide = [np.asarray(part, np.float64) for part in (q, k, v)]
    scores = np.einsum("blhk,bmhk->bhlm", wide[0], wide[1]) / 2
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = np.einsum("bhlm,bmhk->blhk", weights, wide[2])
    found = attend(q, k, v)
    assert found.dtype == dtype
    np.testing.assert_allclose(np.float64(found), expected, atol=tolerance)


def test_an_unknown_form_is_named_with_the_known_ones():
    like = jnp.zeros((1, 2, 1, 8))
    with pytest.raises(ValueError, match="'flash'; expected one of xla, cudnn"):
        attend(like, like, like, implementation="flash")


def lowered(length, implementation, head_dim=64):
    """The program of attention and its gradients, for CUDA, without its types."""

    def loss(*qkv):
        out = attend(*qkv, implementation=implementation)
        assert out.shape == qkv[0].shape
        return jnp.sin(out.astype(jnp.float32)).sum()

    like = jax.ShapeDtypeStruct((2, length, 2, head_dim), "bfloat16")
    with cuda_context():
        traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(like, like, like)
        return traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("length", [82, 97, 916])
def test_cudnn_writes_no_scores(cudnn, length):
    text = lowered(length, "cudnn")
    assert text.count("@__cudnn$fmhaSoftmax(") == 1
    assert text.count("@__cudnn$fmhaSoftmaxBackward(") == 1
    assert f"{length}x{length}" not in text
    assert "dot_general" not in text
    even = length + length % 2  # an odd length gets a row that a length masks
    assert f"tensor<2x{even}x2x64xbf16>" in text
    assert ("stablehlo.pad" in text) == (even != length)
    assert f"{length}x{length}" in lowered(length, "xla")


def network(dtype="bfloat16", **attention):
    """The demo's attention network, with heads of width 8."""
    config = demo.get_config("attention").model.to_dict()
    config["dtype"] = dtype
    config["attention"] |= {"num_heads": 8} | attention
    return ModelConfig.of(config, SIZES)


def form(config, kind):
    return config.for_device(kind).operator("attention").implementation


def test_auto_is_cudnn_on_a_gpu_that_has_it_and_xla_elsewhere(cudnn):
    assert form(network(), "NVIDIA H200") == "cudnn"
    assert form(network(), "cpu") == "xla"
    assert form(network("float32"), "NVIDIA H200") == "xla"
    assert form(network(implementation="xla"), "NVIDIA H200") == "xla"
    assert form(network(implementation="cudnn"), "cpu") == "cudnn"
    # Heads of 4 channels are too narrow for its kernels.
    assert form(network(num_heads=16), "NVIDIA H200") == "xla"


def test_without_cudnn_auto_is_xla(monkeypatch):
    from jax._src.cudnn import fused_attention_stablehlo as module

    monkeypatch.setattr(module, "cuda_versions", None)
    assert not cudnn_takes(64, "bfloat16")
    assert form(network(), "NVIDIA H200") == "xla"


def test_other_settings_stay_as_they_are():
    config = network()
    same = dataclasses.replace(config.operator("attention"), implementation="xla")
    found = config.for_device("cpu")
    assert found.operator("attention") == same
    assert dataclasses.replace(found, operators=config.operators) == config


def test_cudnn_in_float32_is_refused():
    refused = partial(network, "float32", implementation="cudnn")
    with pytest.raises(ConfigError, match="implementation = 'cudnn' with .*'float32'"):
        refused()
