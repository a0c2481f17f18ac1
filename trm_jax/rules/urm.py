# SPDX-License-Identifier: Apache-2.0
"""URM: the Universal Reasoning Model (arXiv 2512.14693).

One latent z is refined in rounds z <- net(z + x). Of the `h_cycles` cycles of
`l_cycles` rounds each, only the last has gradients ("truncated backpropagation through
loops"). It differs from Figure 4 of TRM, the rule `one_latent`, in the number of rounds
and in its network: four blocks of attention and ConvSwiGLU.
"""

import dataclasses
from typing import ClassVar

from trm_jax.rules.latents import MAX_CYCLES
from trm_jax.rules.one_latent import OneLatent
from trm_jax.settings import knob


@dataclasses.dataclass(frozen=True, kw_only=True)
class URM(OneLatent):
    """All but the last `l_cycles` rounds of a supervision step have no gradients."""

    h_cycles: int = knob(
        2, "Cycles of rounds per supervision step.", low=1, high=MAX_CYCLES
    )
    l_cycles: int = knob(6, "Rounds per cycle.", low=1, high=MAX_CYCLES)
    section: ClassVar[str] = "urm"

    @property
    def calls_per_cycle(self) -> int:
        """Rounds per cycle."""
        return self.l_cycles
