# SPDX-License-Identifier: Apache-2.0
"""Rules with other defaults, for the judge: chains of rules, a full flow, starts."""

import dataclasses

from trm_jax.rules.flow import Flow
from trm_jax.rules.trm import TRM
from trm_jax.rules.wta import WTA
from trm_jax.settings import knob


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainsOfEqR(WTA):
    """Chains whose starts and updates draw."""

    inner: str = knob("eqr", "As in WTA.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainsOfFlow(WTA):
    """Chains with a noise of their own."""

    inner: str = knob("flow", "As in WTA.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullFlow(Flow):
    """A flow with every setting off its default; half of the guesses replace labels."""

    order: str = knob("random_start", "As in Flow.", choices=("random_start",))
    pseudo_steps: int = knob(4, "As in Flow.", low=0)
    gamma: float = knob(1.0, "As in Flow.", low=0.0)
    project_question: bool = knob(True, "As in Flow.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnchoredTRM(TRM):
    """Starts that are partly drawn for every visit of a row."""

    starts: str = knob("anchored", "As in TRM.", choices=("anchored",))


VARIANTS = {
    "wta_eqr": ChainsOfEqR,
    "wta_flow": ChainsOfFlow,
    "full_flow": FullFlow,
    "trm_anchored": AnchoredTRM,
}
