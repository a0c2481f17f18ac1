# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trm_jax.ops.conv import causal_conv


@pytest.fixture(params=[1, 4, 9])
def args(request):
    """x, kernel, bias; x is longer than the window, but of length 5 for window 9."""
    rng = np.random.default_rng(request.param)
    length, window, channels = (5 if request.param == 9 else 11), request.param, 3
    shapes = (2, length, channels), (window, channels), (channels,)
    return tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)


def by_loops(x, kernel, bias):
    x, kernel, bias = map(np.float64, (x, kernel, bias))
    out = np.zeros(x.shape)
    for b, t, f in np.ndindex(*x.shape):
        out[b, t, f] = bias[f]
        for i in range(len(kernel)):
            source = t - len(kernel) + 1 + i
            if source >= 0:
                out[b, t, f] += kernel[i, f] * x[b, source, f]
    return out


def test_the_convolution_is_its_definition(args):
    found = causal_conv(*args)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, by_loops(*args), atol=1e-6)


def test_gradients_are_those_of_the_loops(args):
    # The function is linear in each argument, so a difference quotient is exact.
    rng = np.random.default_rng(5)
    cotangent = rng.normal(size=args[0].shape)
    grads = jax.vjp(causal_conv, *args)[1](jnp.asarray(cotangent, jnp.float32))
    for which, grad in enumerate(grads):
        expected = np.zeros(args[which].shape)
        for index in np.ndindex(*expected.shape):
            moved = [np.float64(a) for a in args]
            moved[which][index] += 1
            expected[index] = (cotangent * (by_loops(*moved) - by_loops(*args))).sum()
        np.testing.assert_allclose(grad, expected, atol=1e-5)


def test_an_output_sees_its_window_and_no_later_input(args):
    x, kernel, bias = args
    length = x.shape[1]

    def one_channel(x):
        return causal_conv(x[None, :, None], kernel[:, :1], bias[:1])[0, :, 0]

    seen = jax.jacobian(one_channel)(x[0, :, 0]) != 0
    ages = np.arange(length)[:, None] - np.arange(length)[None]
    np.testing.assert_array_equal(seen, (ages >= 0) & (ages < len(kernel)))


def test_channels_do_not_mix():
    ones = jnp.ones((4, 3))
    grad = jax.grad(lambda x: causal_conv(x, ones, ones[0])[..., 1].sum())(ones[None])
    assert (grad[..., 1] > 0).all()
    assert not grad[..., jnp.array([0, 2])].any()


def test_bfloat16_is_rounded_once_at_the_end(args):
    x, kernel, bias = args
    low = x.astype(jnp.bfloat16)
    found = causal_conv(low, kernel, bias)
    assert found.dtype == jnp.bfloat16
    exact = by_loops(low.astype(jnp.float32), kernel, bias)
    once = jnp.asarray(exact, jnp.float32).astype(jnp.bfloat16)
    unit = np.abs(exact) * 2.0**-8
    error = np.abs(np.asarray(found, np.float64) - exact)
    assert (error <= unit + 1e-6).all()
    assert (found == once).mean() > 0.98  # except for ties that float32 moved
