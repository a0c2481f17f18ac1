// SPDX-License-Identifier: Apache-2.0
// A curve over the steps with a cursor. A click on it goes to the step there.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 600, HIGH = 120;

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

class Chart {
  // `write` makes the text of a value; `line` is a value that is marked, or null.
  constructor(root, { name, most, write, line = null, seek }) {
    Object.assign(this, { name, most, write, last: 1 });
    this.value = element("output", {});
    this.svg = shape("svg", {
      viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img",
    });
    this.curve = shape("path", { class: "curve" });
    this.cursor = shape("path", { class: "cursor" });
    this.svg.append(shape("path", { class: "axis", d: `M0 ${HIGH}H${WIDE}M0 0H${WIDE}` }));
    if (line !== null) {
      this.svg.append(shape("path", { class: "limit", d: `M0 ${this.y(line)}H${WIDE}` }));
    }
    this.dot = shape("path", { class: "dot" });
    this.svg.append(this.curve, this.cursor, this.dot);
    this.svg.addEventListener("click", (event) => {
      const box = this.svg.getBoundingClientRect();
      seek(Math.round((this.last * (event.clientX - box.left)) / box.width));
    });
    this.end = element("span");
    root.append(
      element("p", { class: "chart-head" }, element("span", {}, name), this.value),
      this.svg,
      element("p", { class: "chart-foot" }, element("span", {}, "step 0"), this.end),
    );
  }

  y(value) {
    return HIGH - (HIGH * Math.min(value, this.most)) / this.most;
  }

  // `values[k - 1]` belongs to step k; `step` is where the cursor is.
  draw(values, step, last) {
    this.last = last;
    const x = (k) => (WIDE * k) / last;
    const points = values.map((v, i) => `${x(i + 1).toFixed(1)} ${this.y(v).toFixed(1)}`);
    this.curve.setAttribute("d", points.length ? `M${points.join("L")}` : "");
    this.dot.setAttribute("d", points[step - 1] ? `M${points[step - 1]}h0` : "");
    this.cursor.setAttribute("d", `M${x(step)} 0V${HIGH}`);
    const value = values[step - 1];
    const text = value === undefined ? "" : this.write(value);
    this.value.textContent = text;
    this.end.textContent = `step ${last}`;
    this.svg.setAttribute("aria-label", `${this.name} at step ${step}: ${text || "none"}`);
  }
}
