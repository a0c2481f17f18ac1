# SPDX-License-Identifier: Apache-2.0
"""How many of the last iterations have gradients, and how their number grows."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from jax import lax

from trm_jax.errors import ConfigError
from trm_jax.rules.base import Clock


class Growth(NamedTuple):
    """From `first` iterations to `last` over `updates`; 0 updates: always `first`."""

    first: int
    last: int
    updates: int

    def run(self, form: Callable[..., Any], clock: Clock, *args: Any) -> Any:
        """`form(number, *args)`, one compiled program for all numbers."""
        numbers = range(self.first, max(self.first, self.last) + 1)
        forms = [partial(form, number) for number in numbers]
        if len(forms) == 1:
            return forms[0](*args)
        grown = (len(forms) - 1) * clock.update // self.updates
        return lax.switch(grown, forms, *args)

    def check(self, section: str, unit: str, most: int, counted: str) -> None:
        """Raise ConfigError if the numbers do not fit each other or `most`.

        `unit` names the iterations ("calls"), and `counted` says why there are `most`.
        """
        first, last = f"{section}.grad_{unit}", f"{section}.grow_{unit}_to"
        updates = f"{section}.grow_updates"
        for name, value in ((first, self.first), (last, self.last)):
            if value > most:
                raise ConfigError(
                    f"{name} = {value}, but a supervision step has {counted}"
                )
        if self.updates and not self.last:
            raise ConfigError(
                f"{updates} = {self.updates}; expected 0, since {last} = 0"
            )
        if self.last and not self.updates:
            raise ConfigError(f"{last} = {self.last}; expected 0, since {updates} = 0")
        if self.last and not 0 < self.first < self.last:
            raise ConfigError(
                f"{last} = {self.last}; expected more than grad_{unit} = {self.first}, "
                "which must not be 0"
            )
