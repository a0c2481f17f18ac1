# SPDX-License-Identifier: Apache-2.0
"""The paper's Sudoku training step in plain PyTorch, to compare its time with ours.

python benchmarks/torch_step.py [--mixer mlp_t attention] [--dtype bfloat16]
                                [--batch=8] [--steps=5] [--compile] [--json]

Sizes, cycles and gradients are those of configs/sudoku_extreme.py: width 512, 97
tokens, 3 x 6 cycles of which the last has gradients, float32 weights. The optimiser is
PyTorch's AdamW. PyTorch is no requirement of this project: install it where this runs.
With --json, a line of numbers follows each line of the table.
"""

import argparse
import json
import statistics
import time
from typing import Any

import torch
from torch import nn
from torch.nn import functional

WIDTH, CELLS, PREFIX, TOKENS, HEADS = 512, 81, 16, 11, 8
H_CYCLES, L_CYCLES, BLOCKS = 3, 6, 2
INNER = {"channels": 1536, "positions": 512}
MIXERS = ("mlp_t", "attention")
LENGTH = PREFIX + CELLS


def rms_norm(h: torch.Tensor) -> torch.Tensor:
    """H / rms(h) over the last axis, computed in float32."""
    return functional.rms_norm(h.float(), h.shape[-1:], eps=1e-5).to(h.dtype)


def product(h: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """H @ weight, in h's dtype."""
    return h @ weight.to(h.dtype)


class SwiGlu(nn.Module):
    """(silu(h gate) * h up) down."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.randn(width, 2 * inner) / width**0.5)
        self.down = nn.Parameter(torch.randn(inner, width) / inner**0.5)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """What is added to h."""
        gate, up = product(h, self.gate_up).chunk(2, -1)
        return product(functional.silu(gate) * up, self.down)


class Attention(nn.Module):
    """Attention with rotary positions, by PyTorch's fused kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Parameter(torch.randn(WIDTH, 3 * WIDTH) / WIDTH**0.5)
        self.out = nn.Parameter(torch.randn(WIDTH, WIDTH) / WIDTH**0.5)
        rate = 10_000 ** -(torch.arange(0, 64, 2) / 64)
        angle = torch.outer(torch.arange(LENGTH), rate).repeat(1, 2)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """What is added to h."""
        b, l, d = h.shape
        parts = product(h, self.qkv).view(b, l, 3, HEADS, d // HEADS)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        q, k = (self.rotated(each.float()).to(h.dtype) for each in (q, k))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return product(mixed.transpose(1, 2).reshape(b, l, d), self.out)

    def rotated(self, h: torch.Tensor) -> torch.Tensor:
        """Rotate by the angles of the positions."""
        low, high = h.chunk(2, -1)
        return h * self.cos + torch.cat([-high, low], -1) * self.sin


class Network(nn.Module):
    """Two blocks of mixer and SwiGLU, with the norm after each."""

    def __init__(self, mixer: str) -> None:
        super().__init__()
        self.over_positions = mixer == "mlp_t"
        mixers = [
            SwiGlu(LENGTH, INNER["positions"]) if self.over_positions else Attention()
            for _ in range(BLOCKS)
        ]
        self.mixers = nn.ModuleList(mixers)
        self.mlps = nn.ModuleList(
            SwiGlu(WIDTH, INNER["channels"]) for _ in range(BLOCKS)
        )

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """`b l d` -> `b l d`."""
        for mixer, mlp in zip(self.mixers, self.mlps, strict=True):
            if self.over_positions:
                h = h.transpose(1, 2)
            h = rms_norm(h + mixer(h))
            if self.over_positions:
                h = h.transpose(1, 2)
            h = rms_norm(h + mlp(h))
        return h


class Model(nn.Module):
    """Embedding, recursion and heads: one supervision step."""

    def __init__(self, mixer: str) -> None:
        super().__init__()
        self.net = Network(mixer)
        self.embedding = nn.Parameter(torch.randn(TOKENS, WIDTH) / WIDTH**0.5)
        self.head = nn.Parameter(torch.randn(WIDTH, TOKENS) / WIDTH**0.5)
        self.q_head = nn.Parameter(torch.zeros(WIDTH, 2))

    def cycle(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:
        """Updates of z, then one of y."""
        for _ in range(L_CYCLES):
            z = self.net(z + (y + x))
        return self.net(y + z), z

    def forward(self, cells: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:
        """The loss for labels equal to the cells, and the next y and z."""
        x = WIDTH**0.5 * self.embedding.to(y.dtype)[cells]
        x = functional.pad(x, (0, 0, PREFIX, 0))
        with torch.no_grad():
            for _ in range(H_CYCLES - 1):
                y, z = self.cycle(x, y, z)
        y, z = self.cycle(x, y, z)
        logits = product(y[:, PREFIX:], self.head).float()
        q = product(y[:, 0], self.q_head).float()[:, 0]
        loss = functional.cross_entropy(logits.flatten(0, 1), cells.flatten())
        loss = loss + 0.5 * functional.softplus(q).mean()
        return loss, y.detach(), z.detach()


def measure(
    *, mixer: str, dtype: str, batch: int, steps: int, compiled: bool = False
) -> dict[str, Any]:
    """The median time of `steps` training steps, after three to warm up."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = Model(mixer).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1.0)
    if compiled:
        model.net = torch.compile(model.net)
    cells = torch.randint(1, TOKENS, (batch, CELLS), device=device)
    start = torch.randn(2, batch, LENGTH, WIDTH, device=device)
    y, z = start.to(getattr(torch, dtype))
    times = []
    for _ in range(steps + 3):
        began = time.perf_counter()
        loss, y, z = model(cells, y, z)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        loss.item()  # it waits for the device
        times.append(time.perf_counter() - began)
    return {
        "mixer": mixer,
        "dtype": dtype,
        "batch": batch,
        "compiled": compiled,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "ms_per_step": 1e3 * statistics.median(times[3:]),
        "fastest_ms": 1e3 * min(times[3:]),
        "peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
    }


def main() -> None:
    """Print one line per mixer, or two with --json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mixer", nargs="+", choices=MIXERS, default=MIXERS)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    how = {"dtype": args.dtype, "batch": args.batch, "steps": args.steps}
    for mixer in args.mixer:
        row = measure(mixer=mixer, compiled=args.compile, **how)
        print(f"{mixer:<10} {row['ms_per_step']:.1f} ms/step, torch {row['torch']}")
        if args.json:
            print(json.dumps(row))


if __name__ == "__main__":
    main()
