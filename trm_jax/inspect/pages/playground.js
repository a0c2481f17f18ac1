// SPDX-License-Identifier: Apache-2.0
// The playground: a Sudoku that a visitor edits, and the model that solves it here.
"use strict";

class Playground {
  constructor(page) {
    this.sudoku = new Sudoku(page.box);
    this.examples = page.examples;
    this.steps = []; // what the worker said of steps 1, 2, ...
    this.run = 0; // changes with every puzzle, so that late answers are recognised
    this.grid = new Grid(byId("grid"), {
      shape: [this.sudoku.side, this.sudoku.side], box: page.box,
      symbols: this.sudoku.symbols, name: "Sudoku", editable: true,
    });
    const worker = new Blob(["trm", "worker"].map((id) => byId(id).textContent));
    this.worker = new Worker(URL.createObjectURL(worker));
    this.worker.postMessage({ spec: page.model });
    this.worker.onmessage = ({ data }) => {
      if (data.run === this.run) this.steps.push(data);
      this.wake?.();
    };
    this.worker.onerror = (error) => this.say(`The model failed: ${error.message}`);
    this.shade = new ShadeChooser(byId("shade"), page.model.vocab_size, () => this.draw());
    this.chart = new Chart(byId("halting"), {
      name: "Sure that the answer is correct", most: 1, write: percent, line: 0.5,
      seek: (step) => this.player.seek(step),
    });
    this.entropy = new Chart(byId("entropy"), {
      name: "Mean entropy of the cells (nats)", most: this.shade.most,
      write: (v) => v.toFixed(3), seek: (step) => this.player.seek(step),
    });
    this.question = Array(this.sudoku.numCells).fill(BLANK);
    this.player = new Player(byId("player"), {
      last: page.steps, show: () => this.draw(), prepare: (step) => this.prepare(step),
    });
    this.listen(page.steps);
    this.load(Math.floor(this.examples.length / 2));
  }

  listen(steps) {
    const choice = byId("example"), last = byId("last"), text = byId("text");
    this.examples.forEach(({ puzzle }, i) => {
      const givens = [...puzzle].filter((c) => c !== ".").length;
      choice.append(element("option", { value: i }, `${i + 1}: ${givens} givens`));
    });
    choice.addEventListener("change", () => this.load(Number(choice.value)));
    byId("restore").addEventListener("click", () => this.load(this.example));
    byId("clear").addEventListener("click", () => this.pose(this.question.fill(BLANK)));
    last.value = steps;
    last.addEventListener("input", () => {
      byId("last-value").textContent = last.value;
      this.player.setLast(Number(last.value));
    });
    byId("last-value").textContent = steps;
    text.addEventListener("change", () => this.read(text.value));
    document.addEventListener("paste", (event) => {
      const pasted = event.clipboardData.getData("text");
      if (event.target === text || pasted.trim().length < 2) return;
      event.preventDefault();
      this.read(pasted);
    });
    const inputs = this.grid.cells.map((cell) => cell.firstChild);
    inputs.forEach((input, cell) => {
      input.addEventListener("keydown", (event) => this.move(event, cell));
      input.addEventListener("input", (event) => this.type(event.data ?? "", cell));
      input.addEventListener("focus", () => {
        inputs.forEach((other) => { other.tabIndex = other === input ? 0 : -1; });
        input.select();
        this.focused = cell;
        this.describe();
      });
    });
  }

  // Pose a puzzle: forget the answers, and show it.
  pose(question) {
    this.question = question;
    this.steps = [];
    this.run += 1;
    this.worker.postMessage({ question, run: this.run });
    byId("text").value = this.sudoku.write(question);
    byId("example").value = ""; // the option for a puzzle of the visitor's own
    this.player.restart();
  }

  load(example) {
    this.example = example;
    this.pose(this.sudoku.parse(this.examples[example].puzzle));
    byId("example").value = example;
  }

  read(text) {
    try {
      this.pose(this.sudoku.parse(text));
    } catch (error) {
      this.say(error.message);
    }
  }

  type(character, cell) {
    const token = character === "" ? BLANK : this.sudoku.token(character);
    if (token === null) return this.draw();
    this.question[cell] = token;
    this.pose(this.question);
    if (character !== "") this.focus(cell + 1);
  }

  move(event, cell) {
    const { side } = this.sudoku;
    const column = cell % side;
    const steps = { ArrowUp: -side, ArrowDown: side, ArrowLeft: column ? -1 : 0,
      ArrowRight: column < side - 1 ? 1 : 0, Home: -column, End: side - 1 - column };
    if (event.key in steps) this.focus(cell + steps[event.key]);
    else if (event.key === "Backspace" || event.key === "Delete") this.type("", cell);
    else return;
    event.preventDefault();
  }

  focus(cell) {
    this.grid.cells[cell]?.firstChild.focus();
  }

  // Let the worker compute up to a step; false if another puzzle was posed meanwhile.
  async prepare(step) {
    const { run } = this;
    while (this.steps.length < step) {
      this.worker.postMessage({ step: this.steps.length + 1 });
      await new Promise((resolve) => { this.wake = resolve; });
      if (run !== this.run) return false;
    }
    return true;
  }

  draw() {
    const { step } = this.player ?? { step: 0 }, { question, sudoku } = this;
    const shown = this.steps[step - 1], tokens = shown?.tokens ?? question;
    const before = this.steps[step - 2]?.tokens ?? question;
    const { bad, text, solved } = sudoku.judge(tokens, question);
    const changed = (i) => tokens[i] !== before[i];
    this.grid.draw(tokens, {
      given: (i) => question[i] > BLANK && question[i] === tokens[i],
      changed: shown && changed, bad: (i) => bad.has(i), kind: this.shade.value,
      shades: this.shade.of(shown),
    });
    const numChanged = plural(tokens.filter((_, i) => changed(i)).length, "cell");
    const given = question.filter((token) => token > BLANK).length;
    this.say(shown
      ? `Step ${step}: ${numChanged} changed; ${percent(shown.halt_probability)} sure. ${text}`
      : `${plural(given, "given")}. ${bad.size ? "The puzzle itself breaks a rule." : "Press Play."}`);
    byId("status").className = shown && solved ? "solved" : "";
    byId("time").textContent = shown ? `${shown.seconds.toFixed(2)} s per step` : "";
    this.chart.draw(this.steps.map((s) => s.halt_probability), step, this.player.last);
    this.entropy.draw(this.steps.map((s) => mean(s.entropy)), step, this.player.last);
    this.describe();
  }

  // The likeliest digits of the cell that has the focus.
  describe() {
    const cell = this.focused ?? 0, { side, symbols } = this.sudoku;
    const chances = this.steps[this.player.step - 1]?.chances[cell];
    const place = `Row ${Math.floor(cell / side) + 1}, column ${(cell % side) + 1}`;
    const best = chances?.map((p, token) => [p, token]).sort((a, b) => b[0] - a[0]);
    const listed = best?.slice(0, 3).map(([p, token]) => `${symbols[token] || "blank"} at ${percent(p)}`);
    byId("cell").textContent = listed ? `${place}: ${listed.join(", ")}` : "";
  }

  say(text) {
    byId("status").textContent = text;
  }
}

embedded().then((page) => {
  writeHeading(page.title, page.facts);
  window.playground = new Playground(page);
});
