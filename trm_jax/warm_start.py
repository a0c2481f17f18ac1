# SPDX-License-Identifier: Apache-2.0
"""A run that starts from given weights: checked, recorded in init.json, and applied."""

import logging
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from trm_jax.errors import ConfigError
from trm_jax.files import read_bytes
from trm_jax.loading import open_weights
from trm_jax.runtime.workdir import read_record, write_record
from trm_jax.training.build import Built
from trm_jax.types import TrainState
from trm_jax.weights.tensors import TABLE_MODES, to_weights, weights_digest

RECORD = "init.json"
log = logging.getLogger(__name__)


class WarmStart:
    """The weights that a new run starts from, if any.

    `source` is any place that `trm_jax.load` knows, and `table` says what becomes of
    its puzzle table. A run that was begun so remembers both: when it resumes, they may
    be left out, but they cannot change. `record` is what its workdir records, or None.
    """

    def __init__(
        self, workdir: str | Path, source: str | os.PathLike[str] | None, table: str
    ) -> None:
        if table not in TABLE_MODES:
            names = ", ".join(TABLE_MODES)
            raise ConfigError(f"--init_table={table}; expected one of {names}")
        if source is None and table != "keep":
            raise ConfigError(f"--init_table={table} goes with --init_from")
        self._path = Path(workdir) / RECORD
        self._table = table
        self._weights: Any = None
        self.record: dict[str, Any] | None = None
        is_begun = (Path(workdir) / "config.json").exists()
        before = read_record(self._path) if self._path.exists() else None
        if is_begun and before is None and source is not None:
            raise ConfigError(
                f"{workdir}: this run did not begin with --init_from; use a new "
                "--workdir to start from weights"
            )
        runs = read_bytes(Path(workdir) / "runs.jsonl", ConfigError)
        if before is None and b', "init": {' in runs:
            raise ConfigError(
                f"{self._path}: not found, but runs.jsonl says that this run began "
                "with given weights; restore it from a backup, or use a new --workdir"
            )
        self._before = before if is_begun or source is None else None
        self._source = os.fspath(source) if source is not None else None

    def prepare(self, built: Built, has_checkpoint: bool) -> None:
        """Read and check the weights; nothing is written.

        Of a run that has a checkpoint, only a given source is compared with the record.

        Raises:
          ConfigError: the source or the treatment of the table differs from the record.
          CheckpointError: the weights cannot be read, or do not fit the config.
        """
        before = self._before
        self.record = before
        if self._source is None and (before is None or has_checkpoint):
            return
        if self._source is None and before:
            self._source, self._table = before["source"], before["table"]
        bundle = open_weights(self._source or "")
        source = self._source or ""
        self.record = {
            "source": os.path.abspath(source) if os.path.exists(source) else source,
            "table": self._table,
            "step": bundle.record["step"],
            "weights": bundle.record["weights"],
            "sha256": weights_digest(bundle),
            "init": bundle.record["provenance"].get("init"),
        }
        for key in ("sha256", "table"):
            if before and before[key] != self.record[key]:
                raise ConfigError(
                    f"{self._path}: this run began with other weights ({key} "
                    f"{before[key][:16]}, of {before['source']}), not with {source} "
                    f"({self.record[key][:16]}); leave --init_from out to resume it"
                )
        self.record = before or self.record
        if not has_checkpoint:
            self._weights = to_weights(
                bundle, built, table=self._table, flag="--init_table"
            )
            text = "weights  of %s, step %d; puzzle table: %s"
            log.info(text, bundle.source, bundle.record["step"], self._table)

    def claim(self) -> None:
        """Write the record, if there is one."""
        if self.record:
            write_record(self._path, self.record)

    def state(self, built: Built) -> TrainState:
        """The state of step 0: fresh, or with the given weights as their average."""
        state = built.init()
        if self._weights is None:
            return state
        params, constants, table = jax.tree.map(jnp.copy, self._weights)
        self._weights = None
        return state._replace(
            params=params,
            ema_params=jax.tree.map(jnp.copy, params),
            constants=constants,
            puzzle_table=table,
        )
