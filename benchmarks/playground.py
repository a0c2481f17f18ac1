# SPDX-License-Identifier: Apache-2.0
"""How closely a playground page computes what JAX computes, and how fast, under node.

python benchmarks/playground.py WEIGHTS [--puzzles=64] [--steps=16]

The page is that of `python -m trm_jax.inspect.playground WEIGHTS`. Its own code runs on
the first test puzzles of the run, and its logits are compared with those of the
evaluation of trm_jax, on the processor.
"""

import argparse
import functools
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

import trm_jax
from data_pipeline import tasks
from trm_jax.evaluation.evaluate import stepper
from trm_jax.inspect import playground
from trm_jax.types import Batch

# Runs the worker of a page as the page does; prints what it posts for each question.
WORKER = """
const fs = require("fs"), zlib = require("zlib");
const { html, questions, steps } = JSON.parse(fs.readFileSync(0, "utf8"));
const text = (id) => html.match(new RegExp(`id="${id}">([^]*?)</script>`))[1];
const page = JSON.parse(zlib.gunzipSync(Buffer.from(text("data"), "base64")));
const posted = [], self = { postMessage: (m) => posted.push(m) };
new Function("self", `${text("trm")}\\n${text("worker")}`)(self);
self.onmessage({ data: { spec: page.model } });
questions.forEach((question, run) => {
  self.onmessage({ data: { question, run } });
  for (let step = 1; step <= steps; step++) self.onmessage({ data: { step } });
});
console.log(JSON.stringify(posted.map((m) => ({ ...m, logits: [...m.logits] }))));
"""


def by_node(html: str, questions: np.ndarray, steps: int) -> tuple[Any, Any, Any]:
    """Logits `s b m v`, halting logits `s b`, and all that the worker posted."""
    asked = {"html": html, "questions": questions.tolist(), "steps": steps}
    done = subprocess.run(
        [shutil.which("node") or "node", "-e", WORKER],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    posted = json.loads(done.stdout)
    n, m = questions.shape
    logits = np.array([one["logits"] for one in posted]).reshape(n, steps, m, -1)
    q = np.array([one["q_halt"] for one in posted]).reshape(n, steps)
    return logits.swapaxes(0, 1), q.T, posted


def by_jax(model: Any, questions: np.ndarray, steps: int) -> tuple[Any, Any]:
    """Logits `s b m v` and halting logits `s b` of the evaluation."""
    n, m = questions.shape
    rows = Batch(
        inputs=jnp.asarray(questions, jnp.int32),
        labels=jnp.zeros((n, m), jnp.int32),
        label_mask=jnp.zeros((n, m), bool),
        puzzle_id=jnp.zeros(n, jnp.int32),
        weight=jnp.ones(n, jnp.float32),
    )
    weights = model.params, model.constants, model.table
    logits, q = jax.device_get(_run_of(model, steps)(weights, rows))
    return logits, q


@functools.cache
def _run_of(model: Any, steps: int) -> Any:
    """The compiled (weights, rows) -> logits and halting logits of every step."""
    recipe = model._built.recipe

    @jax.jit
    def run(weights: Any, rows: Batch) -> Any:
        numbers = jnp.arange(len(rows.weight))
        carry, step = stepper(recipe, weights, rows, numbers, steps, 0)

        def body(carry: Any, _: None) -> Any:
            carry, outputs = step(carry)
            answer = recipe.rule.answer(outputs)
            return carry, (answer.logits, answer.q_halt)

        return jax.lax.scan(body, carry, length=steps)[1]

    return run


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser()
    parser.add_argument("weights")
    parser.add_argument("--puzzles", type=int, default=64)
    parser.add_argument("--steps", type=int, default=16)
    args = parser.parse_args()
    model = trm_jax.load(args.weights)
    test = tasks.load(model.config["data"]).test.puzzles.first(args.puzzles)
    questions = test.inputs.astype(int)
    html = playground.page(model)
    logits, q = by_jax(model, questions, args.steps)
    found_logits, found_q, posted = by_node(html, questions, args.steps)
    same = (found_logits.argmax(-1) == logits.argmax(-1)).all(-1)
    solved = (logits[-1].argmax(-1) == test.labels).all(-1)
    difference = abs(found_logits - logits)
    seconds = statistics.median(one["seconds"] for one in posted)
    print(model)
    print(f"page: {len(html.encode()) / 2**20:.2f} MiB")
    print(f"time of a step: {seconds:.3f} s (median of {len(posted)})")
    print(f"equal answers: {same.sum()} of {same.size} (puzzles x steps)")
    print(f"exact after the last step: {solved.sum()} of {len(solved)}")
    print(f"largest logit: {abs(logits).max():.1f}")
    print(f"median difference of logits: {np.median(difference):.1e}")
    by_step = ", ".join(f"{one.max():.1e}" for one in difference)
    print(f"largest difference, by step: {by_step}")
    print(f"largest difference of the halting logit: {abs(found_q - q).max():.1e}")


if __name__ == "__main__":
    main()
