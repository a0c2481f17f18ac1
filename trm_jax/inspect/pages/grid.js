// SPDX-License-Identifier: Apache-2.0
// A grid of cells: texts or colours, lines between boxes, marks and shades.
"use strict";

class Grid {
  // `colours` has one CSS colour per token, or null for a token without one. An
  // editable grid has an input in each cell, of which one takes part in tabbing.
  constructor(root, { shape, box, symbols, colours, name, editable = false }) {
    [this.rows, this.columns] = shape;
    Object.assign(this, { root, symbols, colours, editable });
    root.className = "grid";
    root.style.setProperty("--columns", this.columns);
    root.style.setProperty("--rows", this.rows);
    root.classList.toggle("many", this.columns > 20);
    root.setAttribute("role", "table");
    root.setAttribute("aria-label", name);
    Object.assign(this, { cells: [], names: [], states: [] });
    for (let r = 0; r < this.rows; r++) {
      const row = element("div", { role: "row", class: "row" });
      for (let c = 0; c < this.columns; c++) {
        const left = box && c && c % box[1] === 0 ? " box-left" : "";
        const top = box && r && r % box[0] === 0 ? " box-top" : "";
        const names = `cell${left}${top}`;
        const cell = element("div", { role: "cell", class: names }, this.content(r, c));
        row.append(cell);
        this.cells.push(cell);
        this.names.push(names);
      }
      root.append(row);
    }
    this.inks = colours && colours.map((colour) => this.ink(colour));
  }

  content(r, c) {
    if (!this.editable) return element("span");
    return element("input", {
      inputmode: "numeric", autocomplete: "off", tabindex: r + c ? -1 : 0,
      "aria-label": `row ${r + 1}, column ${c + 1}`,
    });
  }

  // Black or white, whichever can be read on the colour.
  ink(colour) {
    if (!colour) return null;
    this.root.style.color = colour;
    const [r, g, b] = getComputedStyle(this.root).color.match(/[\d.]+/g).map(Number);
    this.root.style.color = "";
    return 0.3 * r + 0.59 * g + 0.11 * b > 120 ? "#000" : "#fff";
  }

  text(cell) {
    const content = this.cells[cell].firstChild;
    return this.editable ? content.value : content.textContent;
  }

  // Show tokens. `given`, `changed` and `bad` are functions of the number of a cell;
  // `shades` has a number from 0 to 1 per cell, or is null.
  draw(tokens, { given, changed, bad, shades = null, kind = "none" } = {}) {
    this.root.dataset.shade = shades ? kind : "none";
    tokens.forEach((token, i) => {
      const symbol = this.symbols[token] ?? "?", colour = this.colours?.[token];
      if (this.editable) this.cells[i].firstChild.value = symbol;
      const marks = { given: given?.(i), changed: changed?.(i), bad: bad?.(i) };
      const names = Object.keys(marks).filter((name) => marks[name]);
      if (colour) names.push("coloured");
      const style = `--v: ${shades ? shades[i].toFixed(2) : 0};`
        + (colour ? `--token: ${colour}; --token-ink: ${this.inks[token]}` : "");
      this.update(i, symbol, `${this.names[i]} ${names.join(" ")}`, style);
    });
  }

  // Change a cell. One that stays as it is costs nothing: grids may have 900 cells.
  update(i, symbol, names, style) {
    const cell = this.cells[i], state = `${symbol}\n${names}\n${style}`;
    if (this.states[i] === state) return;
    this.states[i] = state;
    cell.className = names;
    cell.style.cssText = style;
    if (!this.editable) cell.firstChild.textContent = symbol;
  }
}
