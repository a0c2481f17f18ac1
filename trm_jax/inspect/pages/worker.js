// SPDX-License-Identifier: Apache-2.0
// The thread that thinks. It is sent {spec} once, then {question} for each puzzle, and
// {step: k} for each step. It answers {run, step, seconds, logits, ...} (see `judged`),
// where `run` is the number that came with the question.
"use strict";

let model = null, run = 0;

self.onmessage = ({ data }) => {
  if (data.spec) model = new Trm(data.spec);
  if (data.question) {
    run = data.run;
    model.start(data.question);
  }
  if (!data.step) return;
  const before = performance.now();
  const outputs = model.step();
  const seconds = (performance.now() - before) / 1000;
  const found = judged(outputs, model.spec);
  self.postMessage({ run, step: data.step, seconds, logits: outputs.logits, ...found });
};
