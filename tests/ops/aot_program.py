# SPDX-License-Identifier: Apache-2.0
"""Compile an operator for an absent H200, and print the memory it takes as JSON.

ssd_aot_test.py starts this in its own process, since jax reads its settings once.
The arguments are a length, one of PASSES or of GATED, an empty folder for the
compiler's dump, and the implementation of the scan, pallas or mosaic. Of mosaic, the
JSON has a list of kernels.
"""

import json
import re
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.ops.cases import cuda_context
from trm_jax.ops.gated import gated_product
from trm_jax.ops.ssd.ssd import ssd

LENGTH, PASS, DUMP = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
IMPLEMENTATION = sys.argv[4]
b, h, p, n, g = 768, 16, 64, 128, 1  # the published batch and mixer


def y_and_last(*args):
    return ssd(*args, implementation=IMPLEMENTATION)


def y_alone(*args):
    return y_and_last(*args)[0]


def gradients(dy, *args):
    return jax.vjp(y_alone, *args)[1](dy)


PASSES = {"forward": y_and_last, "y_alone": y_alone, "backward": gradients}


def scan_program(array):
    """A pass of the scan, and its arguments."""
    x = array(b, LENGTH, h, p, dtype=jnp.bfloat16)
    B = array(b, LENGTH, g, n, dtype=jnp.bfloat16)
    args = (x, array(b, LENGTH, h), array(h), B, B)
    return PASSES[PASS], (x, *args) if PASS == "backward" else args


d = 512  # the published width; GATED has whether positions are mixed, and the width
GATED = {"token_mlp": (True, 512), "swiglu": (False, 1536)}


def gated_program(array):
    """The fused product of MLP-t or SwiGLU with its gradients, and its arguments."""
    over_rows, width = GATED[PASS]
    x, k = ((LENGTH, b * d), LENGTH) if over_rows else ((b * LENGTH, d), d)
    y = (width, b * d) if over_rows else (b * LENGTH, width)

    def fn(dy, *args):
        value, back = jax.vjp(partial(gated_product, over_rows=over_rows), *args)
        return value, back(dy)

    return fn, [array(*s, dtype=jnp.bfloat16) for s in (y, x, (k, 2 * width))]


def compiled():
    description = Path(__file__).with_name("h200.textproto").read_text()
    devices = topologies.get_topology_desc(
        platform="cuda", topology="1x1x1", target_config=description
    ).devices
    sharding = NamedSharding(Mesh(np.array(devices[:1]), ("x",)), PartitionSpec())

    def array(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    fn, args = (gated_program if PASS in GATED else scan_program)(array)
    with cuda_context():
        return jax.jit(fn).lower(*args).compile()


def shared_memory():
    """Bytes of shared memory per kernel that uses any, from the list of launches."""
    text = "".join(file.read_text() for file in DUMP.glob("*thunk_sequence.txt"))
    found = [int(v) for v in re.findall(r"shared_memory: (\d+)", text)]
    return [v for v in found if v]


def mosaic_kernels():
    """What each kernel takes, from the files that Mosaic writes for it."""
    found = []
    for report in sorted(DUMP.glob("*.ptxas")):
        text = report.read_text()
        ptx = report.with_suffix(".ptx").read_text()
        resources = report.with_suffix(".resources.txt").read_text()
        number = partial(_number, text)
        found.append(
            {
                "registers": number(r"Used (\d+) registers"),
                "spilled_bytes": number(r"(\d+) bytes spill stores"),
                "shared_bytes": _number(resources, r"smem_scratch_bytes=(\d+)"),
                "wgmma": ptx.count("wgmma.mma_async"),
            }
        )
    return found


def _number(text, pattern):
    return int(re.findall(pattern, text)[-1])


memory = compiled().memory_analysis()
found = {"temporary": memory.temp_size_in_bytes, "shared": shared_memory()}
found["mosaic"] = mosaic_kernels()
sys.stdout.write(json.dumps(found))
