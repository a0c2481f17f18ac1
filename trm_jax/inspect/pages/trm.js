// SPDX-License-Identifier: Apache-2.0
// TRM with MLP-t for one puzzle, in float32: what trm_jax/rules/trm.py and
// trm_jax/model/ compute. Arrays are flat Float32Arrays; a state is `l d`, row by row.
"use strict";

const RMS_EPS = 1e-5;

// Product of A (`rows` x `inner`, whose entry i, k is a[i * rowStep + k * step]) and of
// b (`inner` x `cols`). Two rows and four columns at a time are the fastest by far.
function product(a, rowStep, step, b, rows, inner, cols) {
  const out = new Float32Array(rows * cols);
  for (let i = 0; i < rows; i += 2) {
    const next = i + 1 < rows ? rowStep : 0;
    let j = 0;
    for (; j + 3 < cols; j += 4) {
      let s0 = 0, s1 = 0, s2 = 0, s3 = 0, t0 = 0, t1 = 0, t2 = 0, t3 = 0;
      for (let k = 0, p = j, q = i * rowStep; k < inner; k++, p += cols, q += step) {
        const s = a[q], t = a[q + next];
        const b0 = b[p], b1 = b[p + 1], b2 = b[p + 2], b3 = b[p + 3];
        s0 += s * b0; s1 += s * b1; s2 += s * b2; s3 += s * b3;
        t0 += t * b0; t1 += t * b1; t2 += t * b2; t3 += t * b3;
      }
      const at = i * cols + j;
      out[at] = s0; out[at + 1] = s1; out[at + 2] = s2; out[at + 3] = s3;
      if (next) {
        const below = at + cols;
        out[below] = t0; out[below + 1] = t1; out[below + 2] = t2; out[below + 3] = t3;
      }
    }
    for (; j < cols; j++) {
      let s = 0, t = 0;
      for (let k = 0, p = j, q = i * rowStep; k < inner; k++, p += cols, q += step) {
        s += a[q] * b[p];
        t += a[q + next] * b[p];
      }
      out[i * cols + j] = s;
      if (next) out[(i + 1) * cols + j] = t;
    }
  }
  return out;
}

function sum(a, b) {
  const out = new Float32Array(a.length);
  for (let i = 0; i < out.length; i++) out[i] = a[i] + b[i];
  return out;
}

// h / rms(h) over the channels, or over the positions.
function rmsNorm(h, width, overPositions) {
  const length = h.length / width, out = new Float32Array(h.length);
  const [outer, outerStep, count, step] = overPositions
    ? [width, 1, length, width]
    : [length, width, width, 1];
  for (let i = 0; i < outer; i++) {
    const first = i * outerStep, end = first + count * step;
    let squares = 0;
    for (let k = first; k < end; k += step) squares += h[k] * h[k];
    const scale = 1 / Math.sqrt(squares / count + RMS_EPS);
    for (let k = first; k < end; k += step) out[k] = h[k] * scale;
  }
  return out;
}

function silu(x) {
  return x / (1 + Math.exp(-x));
}

// Probabilities of the tokens of one cell, by the function that the loss used.
function probabilities(logits, loss) {
  const top = Math.max(...logits);
  const weigh = loss === "stablemax"
    ? (v) => (v >= 0 ? v + 1 : 1 / (1 - v))
    : (v) => Math.exp(v - top);
  const weights = Array.from(logits, weigh);
  const total = weights.reduce((s, w) => s + w, 0);
  return weights.map((w) => w / total);
}

// The floats of a base64 text.
function floats(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

class Trm {
  // `spec` is what trm_jax/inspect/playground.py writes.
  constructor(spec) {
    this.spec = spec;
    this.width = spec.d_model;
    this.length = spec.prefix_len + spec.num_cells;
    this.arrays = {};
    for (const [path, text] of Object.entries(spec.arrays)) {
      this.arrays[path] = floats(text);
    }
  }

  // Set y and z to their fixed starts, and embed the question (tokens).
  start(question) {
    const { width, length, arrays } = this;
    const everywhere = (row) =>
      Float32Array.from({ length: length * width }, (_, i) => row[i % width]);
    this.y = everywhere(arrays.y);
    this.z = everywhere(arrays.z);
    this.x = this.embed(question);
  }

  embed(question) {
    const { width, length, arrays, spec } = this;
    const x = new Float32Array(length * width);
    if (spec.prefix_len) x.set(arrays.prefix);
    question.forEach((token, cell) => {
      const row = arrays.embed_tokens.subarray(token * width, (token + 1) * width);
      x.set(row, (spec.prefix_len + cell) * width);
    });
    const positions = arrays.positions;
    const placed = positions ? sum(x, positions).map((v) => Math.sqrt(0.5) * v) : x;
    return placed.map((v) => Math.sqrt(width) * v);
  }

  // The network: a stack of sublayers with the norm before or after each.
  net(h) {
    const { width, spec } = this;
    spec.layers.forEach((kind, i) => {
      const overPositions = kind === "token_mlp";
      const sublayer = (v) => this.gatedMlp(v, `${i}_${kind}`, overPositions);
      h = spec.norm === "pre"
        ? sum(h, sublayer(rmsNorm(h, width, overPositions)))
        : rmsNorm(sum(h, sublayer(h)), width, overPositions);
    });
    return h;
  }

  // SwiGLU over the channels (h W), or over the positions (W' h).
  gatedMlp(h, name, overPositions) {
    const { width, length, arrays } = this;
    const up = arrays[`${name}/gate_up`], down = arrays[`${name}/down`];
    const size = overPositions ? length : width, inner = down.length / size;
    if (overPositions) {
      const both = product(up, 1, 2 * inner, h, 2 * inner, length, width);
      const gates = both.subarray(0, inner * width);
      const gated = gates.map((g, i) => silu(g) * both[inner * width + i]);
      return product(down, 1, length, gated, length, inner, width);
    }
    const both = product(h, width, 1, up, length, width, 2 * inner);
    const gated = new Float32Array(length * inner);
    for (let i = 0; i < length; i++) {
      for (let k = 0, at = 2 * i * inner; k < inner; k++, at++) {
        gated[i * inner + k] = silu(both[at]) * both[at + inner];
      }
    }
    return product(gated, inner, 1, down, length, inner, width);
  }

  // One supervision step: h-cycles of l-cycles, as in Figure 3 of the paper.
  step() {
    const { h_cycles, l_cycles } = this.spec;
    for (let i = 0; i < h_cycles; i++) {
      const given = sum(this.y, this.x);
      for (let j = 0; j < l_cycles; j++) this.z = this.net(sum(this.z, given));
      this.y = this.net(sum(this.y, this.z));
    }
    return this.predict();
  }

  // The logits of the cells, `m v`, and the halting logit.
  predict() {
    const { width, length, arrays, spec } = this;
    const y = spec.norm === "pre" ? rmsNorm(this.y, width, false) : this.y;
    const cells = y.subarray(spec.prefix_len * width);
    const logits =
      product(cells, width, 1, arrays.head, spec.num_cells, width, spec.vocab_size);
    const rows = { first: [0, 1], last: [length - 1, length], mean: [0, length] };
    const [from, to] = rows[spec.halt_position];
    let q = arrays.halt_bias[0];
    for (let i = from * width; i < to * width; i++) {
      q += (y[i] * arrays.halt_kernel[2 * (i % width)]) / (to - from);
    }
    return { logits, q };
  }
}

// A step with what the page shows of each cell: the likeliest token, its probability,
// the entropy in nats.
function judged({ logits, q }, { vocab_size, cell_loss }) {
  const tokens = [], confidence = [], entropy = [], chances = [];
  for (let at = 0; at < logits.length; at += vocab_size) {
    const cell = Array.from(logits.subarray(at, at + vocab_size));
    const p = probabilities(cell, cell_loss), token = cell.indexOf(Math.max(...cell));
    tokens.push(token);
    chances.push(p);
    confidence.push(p[token]);
    entropy.push(p.reduce((s, v) => (v > 0 ? s - v * Math.log(v) : s), 0));
  }
  const halt_probability = 1 / (1 + Math.exp(-q));
  return { tokens, confidence, entropy, chances, q_halt: q, halt_probability };
}
