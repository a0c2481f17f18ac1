# SPDX-License-Identifier: Apache-2.0
"""Test-wide settings, and batches of random rows."""

import gc
import itertools
import os
import pathlib
import time
from importlib.metadata import version

# Several virtual devices on few cores deadlock without this (XLA CPU collectives).
os.environ.setdefault("PJRT_NPROC", "16")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The tests spend nearly all their time in the compiler, so it optimises little: a step
# takes a sixth of the time. `make slow` sets this variable and XLA_FLAGS, and so
# compiles as users do.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# The rest is tracing, which is faster if programs omit their source locations.
os.environ.setdefault("JAX_INCLUDE_FULL_TRACEBACKS_IN_LOCATIONS", "0")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
FLAGS = "--xla_force_host_platform_device_count=2"
FLAGS += " --xla_cpu_parallel_codegen_split_count=1"  # less work for small programs
if version("jaxlib").startswith("0.10."):  # an unknown flag would end the process
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", FLAGS)
# The tests and their subprocesses compile the same small programs again and again.
_CACHE = pathlib.Path(__file__).parent.parent / ".pytest_cache" / "xla"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax
import numpy as np
import pytest

from trm_jax.types import Batch

jax.config.update("jax_numpy_rank_promotion", "raise")
# Tracing makes many small objects that live on; looking through them for garbage at
# Python's usual pace takes up to an eighth of the time of a test file.
gc.set_threshold(50_000, 20, 100)


# Linux lets a process have 65,530 memory mappings, and a compiled program takes some
# four. LLVM ends the process when it gets no more: one worker alone reaches that, and
# one file of tests on eight devices. Counting them takes up to 30 ms.
MOST_MAPPINGS = 30_000
TESTS_DONE = itertools.count(1)
LONG_S = 3.0


@pytest.fixture(autouse=True)
def few_mappings():
    """Forget the compiled programs once they are many.

    This looks after every fifth test, and after all long ones, which compile the most.
    """
    start = time.monotonic()
    yield
    if time.monotonic() - start < LONG_S and next(TESTS_DONE) % 5:
        return
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()


def pytest_sessionfinish():
    """Spare the garbage of the whole session from the search that pytest ends with."""
    gc.freeze()


@pytest.fixture(params=["attention", "token_mlp"])
def mixer(request):
    return request.param


@pytest.fixture
def make_batch():
    """A function that makes a batch of random rows from a seed."""

    def make(seed, config, num_rows=6):
        rng = np.random.default_rng(seed)
        shape = (num_rows, config.num_cells)
        return Batch(
            inputs=rng.integers(1, config.vocab_size, shape).astype(np.int32),
            labels=rng.integers(1, config.vocab_size, shape).astype(np.int32),
            label_mask=rng.random(shape) < 0.8,
            puzzle_id=rng.integers(0, config.num_puzzles, num_rows).astype(np.int32),
            weight=np.ones(num_rows, np.float32),
        )

    return make
