# SPDX-License-Identifier: Apache-2.0
"""The page docs/settings.md: every setting with its default, range and meaning.

python -m trm_jax.commands.settings > docs/settings.md
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from trm_jax import api
from trm_jax.model.config import ModelSettings
from trm_jax.model.sublayers import SUBLAYERS
from trm_jax.rules import RULES, RuleSettings
from trm_jax.settings import describe
from trm_jax.training.config import PLAIN, Seed
from trm_jax.training.optim import OPTIMIZERS, OptimSettings

HEAD = """# Settings

This page lists every setting of a config; `--config.KEY=VALUE` sets it. The code that
reads a setting also declares it, and `python -m trm_jax.commands.settings` prints this
page. A setting in a section that the run does not read is refused, unless it has its
default. If a flag chooses another rule, optimiser or other layers than the config file,
the settings that the file made for the last ones get their defaults again, and the new
rule takes over those that it has.
"""


def sections() -> Iterator[tuple[str, type]]:
    """The place of each section in a config, and the dataclass that declares it."""
    data = api.pipeline("settings")
    yield "", Seed
    yield "data", data.DataSettings
    for name in data.TASKS:
        yield f"data.{name}", data.task_module(name).Settings
    yield "model", ModelSettings
    operators = {op.section: op.Settings for op in SUBLAYERS.values()}
    yield from _named("model", operators)
    yield "rule", RuleSettings
    yield from _named("rule", RULES)
    yield "optim", OptimSettings
    yield from _named("optim", OPTIMIZERS)
    yield from PLAIN.items()


def _named(section: str, owners: Mapping[str, type]) -> Iterator[tuple[str, type]]:
    for name, owner in owners.items():
        yield f"{section}.{name}", owner


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for place, section in sections():
        lines += [f"\n## {place or 'The run'}\n", "| key | default | range | meaning |"]
        lines.append("|---|---|---|---|")
        fields: Any = dataclasses.fields(section)
        for field in fields:
            key = f"{place}.{field.name}" if place else field.name
            doc = field.metadata["doc"].replace("|", "\\|")
            cells = f"`{key}`", f"`{field.default!r}`", describe(field), doc
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _print(_: list[str]) -> int:
    api.pipeline("console").say(page())
    return 0


if __name__ == "__main__":
    api.pipeline("console").run(_print)
