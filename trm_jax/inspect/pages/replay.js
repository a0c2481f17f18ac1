// SPDX-License-Identifier: Apache-2.0
// The replay of a record: the answer after every supervision step.
"use strict";

class Replay {
  constructor(record) {
    this.record = record;
    const { shape, box, symbols, colours, steps, question, solution } = record;
    const looks = { shape, box, symbols, colours };
    this.grid = new Grid(byId("grid"), { ...looks, name: "answer" });
    new Grid(byId("question"), { ...looks, name: "question" })
      .draw(question, { given: () => true });
    byId("solution-block").hidden = !solution;
    if (solution) {
      new Grid(byId("solution"), { ...looks, name: "solution" })
        .draw(solution, { given: (i) => record.given[i] });
    }
    const isText = record.given.some(Boolean) && !colours;
    for (const [name, holds] of [["if-solution", solution], ["if-text", isText]]) {
      for (const item of document.getElementsByClassName(name)) item.hidden = !holds;
    }
    this.entropies = steps.map((s) => mean(s.entropy));
    const seek = (step) => this.player.seek(step);
    this.shade = new ShadeChooser(byId("shade"), symbols.length, () => this.draw());
    this.halting = new Chart(byId("halting"), {
      name: "Sure that the answer is correct", most: 1, write: percent, line: 0.5, seek,
    });
    this.entropy = new Chart(byId("entropy"), {
      name: "Mean entropy of the cells (nats)", most: this.shade.most,
      write: (v) => v.toFixed(3), seek,
    });
    this.player = new Player(byId("player"), {
      last: steps.length, show: () => this.draw(),
    });
  }

  draw() {
    const { step } = this.player ?? { step: 0 };
    const { steps, question, given, solution } = this.record;
    const shown = steps[step - 1], tokens = shown?.tokens ?? question;
    const before = steps[step - 2]?.tokens ?? question;
    const wrong = (i) => Boolean(shown && solution && tokens[i] !== solution[i]);
    this.grid.draw(tokens, {
      given: (i) => given[i], bad: wrong, kind: this.shade.value,
      changed: (i) => tokens[i] !== before[i], shades: this.shade.of(shown),
    });
    byId("status").textContent = shown ? this.sentence(step, shown, wrong) : "The question.";
    byId("status").className = shown?.valid ? "solved" : "";
    const last = steps.length;
    this.halting.draw(steps.map((s) => s.halt_probability), step, last);
    this.entropy.draw(this.entropies, step, last);
  }

  sentence(step, { tokens, changed, halt_probability, valid }, wrong) {
    const numWrong = tokens.filter((_, i) => wrong(i)).length;
    const parts = [`${plural(changed, "cell")} changed`];
    if (this.record.solution) parts.push(`${plural(numWrong, "cell")} wrong`);
    parts.push(`${percent(halt_probability)} sure`);
    const verdict = { true: " The answer is valid.", false: " The answer is not valid." };
    return `Step ${step}: ${parts.join("; ")}.${verdict[valid] ?? ""}`;
  }
}

embedded().then((record) => {
  writeHeading(record.title, record.model);
  window.replay = new Replay(record);
});
