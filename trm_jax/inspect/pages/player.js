// SPDX-License-Identifier: Apache-2.0
// A slider over the steps 0 to `last`, with play, single steps and keys.
"use strict";

const SPEEDS = { slow: 900, normal: 350, fast: 60 }; // milliseconds per step

class Player {
  // `show(step)` draws a step. `prepare(step)` may compute it first, and resolves to
  // whether it is there; only one call of it runs at a time.
  constructor(root, { last, show, prepare = async () => true }) {
    Object.assign(this, { show, prepare, step: 0, target: 0, playing: null });
    const button = (text, title, act) => {
      const made = element("button", { type: "button", title }, text);
      made.addEventListener("click", act);
      return made;
    };
    this.toggle = button("Play", "Space", () => this.play(!this.playing));
    this.slider = element("input", { type: "range", min: 0, "aria-label": "step" });
    this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
    this.place = element("output", { class: "place" });
    this.speed = element("select", { "aria-label": "speed" });
    for (const name of Object.keys(SPEEDS)) {
      this.speed.append(element("option", { value: name }, name));
    }
    this.speed.value = "normal";
    root.append(
      this.slider,
      element("div", { class: "buttons" },
        button("Back", "Arrow left", () => this.seek(this.target - 1)),
        this.toggle,
        button("Step", "Arrow right", () => this.seek(this.target + 1)),
        this.speed, this.place),
    );
    document.addEventListener("keydown", (event) => this.key(event));
    this.setLast(last);
  }

  setLast(last) {
    this.last = last;
    this.slider.max = last;
    this.go(Math.min(this.target, last));
  }

  // Go to a step because the visitor says so: this ends playing.
  seek(step) {
    this.play(false);
    return this.go(step);
  }

  // Go to a step; resolves once it is shown, or another one that was chosen since.
  go(step) {
    this.target = Math.max(0, Math.min(this.last, step));
    this.moving ??= this.move().finally(() => { this.moving = null; });
    return this.moving;
  }

  async move() {
    do {
      const goal = this.target;
      if (await this.prepare(goal)) this.stand(goal);
    } while (this.step !== this.target);
  }

  stand(step) {
    this.step = step;
    this.slider.value = step;
    this.place.textContent = `step ${step} of ${this.last}`;
    this.slider.setAttribute("aria-valuetext", this.place.textContent);
    this.show(step);
  }

  // Back to step 0 at once, even if a step is being computed.
  restart() {
    this.play(false);
    this.target = 0;
    this.stand(0);
  }

  // Start or stop playing. A new start ends the loop of the one before.
  async play(start) {
    const mine = start ? {} : null;
    this.playing = mine;
    this.toggle.textContent = start ? "Pause" : "Play";
    if (!start) return;
    if (this.target >= this.last) await this.go(0);
    while (this.playing === mine && this.target < this.last) {
      await this.go(this.target + 1);
      await new Promise((done) => setTimeout(done, SPEEDS[this.speed.value]));
    }
    if (this.playing === mine) this.play(false);
  }

  key(event) {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (target.matches("input:not([type=range], [type=radio]), select, textarea")) return;
    if (key === " " && target.matches("button, summary")) return;
    if (key !== " " && target.matches("input")) return;
    const act = {
      " ": () => this.play(!this.playing),
      ArrowLeft: () => this.seek(this.target - 1),
      ArrowRight: () => this.seek(this.target + 1),
      Home: () => this.seek(0),
      End: () => this.seek(this.last),
    }[key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}
