# SPDX-License-Identifier: Apache-2.0
"""The operators a network is made of: each maps `b l d` to `b l d`.

A new operator is one file here, with a class and its settings, and one entry in
`SUBLAYERS`.
"""

from trm_jax.model.sublayers.attention import Attention
from trm_jax.model.sublayers.base import Sublayer
from trm_jax.model.sublayers.conv_swiglu import ConvSwiGlu
from trm_jax.model.sublayers.mamba1 import (
    Mamba1,
    Mamba1Backward,
    Mamba1Both,
    Mamba1Column,
    Mamba1Four,
    Mamba1RowColumn,
)
from trm_jax.model.sublayers.mamba2 import (
    Mamba2,
    Mamba2Backward,
    Mamba2Both,
    Mamba2Column,
    Mamba2Four,
    Mamba2RowColumn,
)
from trm_jax.model.sublayers.swiglu import SwiGlu, TokenMlp
from trm_jax.settings import choose

SUBLAYERS: dict[str, type[Sublayer]] = {
    "attention": Attention,
    "swiglu": SwiGlu,
    "conv_swiglu": ConvSwiGlu,
    "token_mlp": TokenMlp,
    "mamba1": Mamba1,
    "mamba1_backward": Mamba1Backward,
    "mamba1_both": Mamba1Both,
    "mamba1_column": Mamba1Column,
    "mamba1_row_column": Mamba1RowColumn,
    "mamba1_four": Mamba1Four,
    "mamba2": Mamba2,
    "mamba2_backward": Mamba2Backward,
    "mamba2_both": Mamba2Both,
    "mamba2_column": Mamba2Column,
    "mamba2_row_column": Mamba2RowColumn,
    "mamba2_four": Mamba2Four,
}


def operator(name: str) -> type[Sublayer]:
    """The operator called `name`. Raises ConfigError for an unknown name."""
    return choose(SUBLAYERS, name, "a name in model.layers")
