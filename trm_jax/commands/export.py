# SPDX-License-Identifier: Apache-2.0
"""Export weights: one folder to take home, or the layout of the published PyTorch code.

python -m trm_jax.commands.export SOURCE OUT [--step=N] [--weights=ema|raw]
                                  [--format=safetensors|torch]

SOURCE is a workdir, or any other place that trm_jax.load knows. The new folder OUT gets
model.safetensors and config.json, or step_N and all_config.yaml (TRM and HRM only). It
appears only when it is complete. Exit codes: 0 done, 2 wrong input or config, 1 the
folder cannot be written.
"""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from absl import flags

from trm_jax import api
from trm_jax.commands import shell
from trm_jax.errors import EXIT_OK

log = logging.getLogger(__name__)


def run() -> NoReturn:
    """Export as this process."""
    shell.run(main)


def main(argv: Sequence[str]) -> int:
    """Export as the arguments after argv[0] say, and return the exit code."""
    values = flags.FlagValues()
    choice = partial(flags.DEFINE_enum, flag_values=values)
    flags.DEFINE_integer(
        "step", None, "Checkpoint to export; the newest if unset.", flag_values=values
    )
    choice("weights", None, ["ema", "raw"], "Averaged (default) or raw weights.")
    formats = ["safetensors", "torch"]
    choice("format", "safetensors", formats, "The layout of the new folder.")
    user_errors = (api.pipeline("errors").DataError,)
    act = partial(_main, values, argv)
    return shell.call(act, values, argv, doc=__doc__, user_errors=user_errors)


def _main(values: flags.FlagValues, argv: Sequence[str]) -> int:
    source, out = shell.parse_flags(values, argv, positional=("SOURCE", "OUT"))
    shell.check_devices()
    from trm_jax.loading import open_weights
    from trm_jax.weights import exchange, published

    bundle = open_weights(source, step=values.step, weights=values.weights)
    if values.format == "torch":
        for key in published.write(Path(out), bundle):
            log.info("all_config.yaml cannot hold %s", key)
    else:
        exchange.write(Path(out), bundle)
    count = len(bundle.tensors)
    log.info("%d tensors of step %d written to %s", count, bundle.record["step"], out)
    return EXIT_OK


if __name__ == "__main__":
    run()
