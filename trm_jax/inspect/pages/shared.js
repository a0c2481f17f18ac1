// SPDX-License-Identifier: Apache-2.0
// What both pages use: their data, elements, and the choice of a shading.
"use strict";

// The data of the page: JSON, compressed, as base64.
async function embedded() {
  const text = document.getElementById("data").textContent.trim();
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream();
  return new Response(stream.pipeThrough(new DecompressionStream("gzip"))).json();
}

// An element with attributes and children. A text child is never read as markup.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function byId(id) {
  return document.getElementById(id);
}

function percent(share) {
  return `${(100 * share).toFixed(share > 0.9995 || share < 0.0005 ? 0 : 1)}\u00a0%`;
}

function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function mean(values) {
  return values.reduce((s, v) => s + v, 0) / values.length;
}

// Title and facts at the top of the page.
function writeHeading(title, facts) {
  byId("title").textContent = document.title = title;
  for (const [name, value] of Object.entries(facts)) {
    byId("facts").append(element("div", {}, element("dt", {}, name),
      element("dd", {}, String(value))));
  }
}

const SHADES = {
  none: "no shading",
  confidence: "confidence",
  entropy: "entropy",
};

// Radio buttons that choose what shades the cells: doubt is dark. `draw` is called after
// a change.
class ShadeChooser {
  constructor(root, numTokens, draw) {
    this.value = "confidence";
    this.most = Math.log(numTokens);
    const key = element("p", { class: "scale" }, element("span"), element("i"),
      element("span"));
    const label = () => {
      key.className = `scale ${this.value}`;
      const ends = { none: ["", ""], confidence: ["100 %", "0 %"],
        entropy: ["0 nats", this.most.toFixed(1)] }[this.value];
      [key.children[0].textContent, key.children[2].textContent] = ends;
    };
    for (const [value, text] of Object.entries(SHADES)) {
      const radio = element("input", { type: "radio", name: "shade", value });
      radio.checked = value === this.value;
      radio.addEventListener("change", () => {
        this.value = value;
        label();
        draw();
      });
      root.append(element("label", {}, radio, text));
    }
    root.append(key);
    label();
  }

  // The shade of every cell, 0 to 1; null without a step or without shading.
  of(step) {
    if (!step || this.value === "none") return null;
    return this.value === "confidence"
      ? step.confidence.map((p) => 1 - p)
      : step.entropy.map((v) => v / this.most);
  }
}
