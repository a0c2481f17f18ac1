// SPDX-License-Identifier: Apache-2.0
// The rules of Sudoku. Tokens: 0 PAD, 1 blank, d + 1 for digit d.
"use strict";

const BLANK = 1;

class Sudoku {
  constructor([boxRows, boxColumns]) {
    this.side = boxRows * boxColumns;
    this.box = [boxRows, boxColumns];
    this.symbols = ["?", "", ...Array.from({ length: this.side }, (_, i) => `${i + 1}`)];
  }

  get numCells() {
    return this.side ** 2;
  }

  // The row, the column and the box of a cell, as names.
  units(cell) {
    const row = Math.floor(cell / this.side), column = cell % this.side;
    const [r, c] = this.box.map((size, i) => Math.floor([row, column][i] / size));
    return [`row ${row}`, `column ${column}`, `box ${r} ${c}`];
  }

  // The cells whose digit occurs again in their row, column or box.
  broken(tokens) {
    const seen = new Map(), found = new Set();
    tokens.forEach((token, cell) => {
      if (token <= BLANK) return;
      for (const unit of this.units(cell)) {
        const key = `${unit}: ${token}`;
        if (seen.has(key)) found.add(cell).add(seen.get(key));
        else seen.set(key, cell);
      }
    });
    return found;
  }

  // What is wrong with an answer: its bad cells, and a sentence.
  judge(tokens, question) {
    const bad = this.broken(tokens);
    const repeats = bad.size;
    const altered = question.flatMap((t, i) => (t > BLANK && t !== tokens[i] ? [i] : []));
    const empty = tokens.filter((token) => token <= BLANK).length;
    altered.forEach((cell) => bad.add(cell));
    if (!bad.size && !empty) return { bad, solved: true, text: "Solved: no rule is broken." };
    const faults = [
      repeats && `${plural(repeats, "cell")} break a rule`,
      altered.length && `${plural(altered.length, "given")} altered`,
      empty && `${plural(empty, "cell")} not filled`,
    ].filter(Boolean);
    return { bad, solved: false, text: `Not solved: ${faults.join(", ")}.` };
  }

  // The token of a character: a digit, or `.`, `0`, `_`, `*` for a blank; else null.
  token(character) {
    if (".0_*".includes(character)) return BLANK;
    const digit = Number(character);
    return digit >= 1 && digit <= this.side ? digit + 1 : null;
  }

  // The tokens of a text, row by row; spaces and lines between boxes do not count.
  parse(text) {
    const characters = [...text.replace(/[\s|+-]/g, "")];
    const tokens = characters.map((c) => this.token(c));
    const wrong = tokens.indexOf(null);
    const wanted = `expected ${this.numCells} cells, each 1 to ${this.side} or . for a blank`;
    if (wrong >= 0) throw new Error(`“${characters[wrong]}” at place ${wrong + 1}: ${wanted}`);
    if (tokens.length !== this.numCells) {
      throw new Error(`${plural(tokens.length, "cell")} found: ${wanted}`);
    }
    return tokens;
  }

  write(tokens) {
    return tokens.map((token) => this.symbols[token] || ".").join("");
  }
}
