# SPDX-License-Identifier: Apache-2.0
"""Recursive reasoning models in JAX. Read types.py first, then rules/trm.py.

Notebooks begin with `load`, `train` and `get_config`. These are imported when they are
first used, since importing JAX takes a while.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trm_jax.api import get_config, train
    from trm_jax.loading import load
    from trm_jax.trained import Model, Solution

__version__ = "0.1.0"
__all__ = ["Model", "Solution", "get_config", "load", "train"]


def __getattr__(name: str) -> Any:
    """Import one of `__all__`."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trm_jax import api, loading, trained

    places = {"get_config": api, "train": api, "load": loading}
    return getattr(places.get(name, trained), name)
