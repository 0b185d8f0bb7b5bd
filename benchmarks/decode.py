"""Tokens a second of generation at the size of GPT-2 124M: transformers, and ours four times.

    python benchmarks/decode.py [--quick] [--threads 2] [--batches 1 16] [--cpu-time]
    python benchmarks/decode.py --products      one product of each kind, for 1 to 64 rows
    python benchmarks/decode.py --sizes         from which size fewer bytes are faster

The weights are random and the same for all; a prompt of 32 tokens is continued greedily by 200
with a cache of keys and values. The ways take turns, so a ratio is one within a round; the table
shows the median, the smallest and the largest. "First" is the time until the first new token is
there, "makes" what `for_decoding` took, and "MB" the weights. On a busy machine
`--threads 1 --cpu-time` counts the time that the processor gave to this process instead of the
time on the clock.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from arguments import positive
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lib.config import GPTConfig
from gpt2lib.generation.cpu_products import int8_linear
from gpt2lib.generation.generator import generate
from gpt2lib.generation.quantization import (
    Int8Linear,
    for_decoding,
    lowered_linear,
    quantize,
    widened,
)
from gpt2lib.model.gpt import GPT

RESULTS = Path(__file__).parent / "results"
PROMPT = 32
OURS = ("fp32", "bf16", "int8")
Write = Callable[[Tensor, int], Tensor]


class Way(NamedTuple):
    """One way to write: what continues a prompt, its bytes, and how long it took to make."""

    write: Write
    n_bytes: int
    seconds: float
    logits: Callable[[Tensor], Tensor]


def theirs(model: GPT) -> nn.Module:
    """Return transformers' model with the same weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    c = model.config
    twin = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=c.vocab_size, n_positions=c.block_size, n_embd=c.n_embd,
            n_layer=c.n_layer, n_head=c.n_head, bos_token_id=0, eos_token_id=None,
        )
    ).eval()  # fmt: skip
    turned = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    twin.load_state_dict(
        {n: w.T if n.endswith(turned) else w for n, w in model.state_dict().items()}
    )
    return twin


def ways(model: GPT) -> dict[str, Way]:
    """Return all ways, made anew."""
    twin = theirs(model)

    def by_transformers(idx: Tensor, n: int) -> Tensor:
        return twin.generate(
            idx, attention_mask=torch.ones_like(idx), max_new_tokens=n, do_sample=False,
            use_cache=True, pad_token_id=0,
        )  # fmt: skip

    def by_ours(model: GPT) -> Write:
        return lambda idx, n: generate(model, idx, n, temperature=0)

    plain = 4 * model.num_parameters()
    made = {
        "transformers fp32": Way(by_transformers, plain, 0.0, lambda idx: twin(idx).logits),
        "ours fp32": Way(by_ours(model), plain, 0.0, model),
    }
    for weights in OURS:
        started = time.perf_counter()
        fast = for_decoding(model, weights)
        taken = time.perf_counter() - started
        made[f"for_decoding {weights}"] = Way(by_ours(fast), fast.n_bytes(), taken, fast)
    return made


def generation(args: argparse.Namespace, now: Callable[[], float]) -> dict[str, Any]:
    """Measure generation; print a table for each batch; return all samples."""
    torch.manual_seed(0)
    model = GPT(GPTConfig()).eval()
    made = ways(model)
    n_new, found = (50, {}) if args.quick else (200, {})
    for batch in args.batches:
        idx = torch.randint(model.config.vocab_size, (batch, PROMPT))
        for way in made.values():
            way.write(idx, 3)  # not counted
        rounds: list[dict[str, tuple[float, float]]] = []
        for _ in range(args.rounds):
            rounds.append({})
            for name, way in made.items():
                started = now()
                way.write(idx, 1)
                first = now() - started
                way.write(idx, n_new)
                rounds[-1][name] = (batch * n_new / (now() - started - first), first)
        with torch.no_grad():
            wanted = made["transformers fp32"].logits(idx).float()
            off = {
                name: float((way.logits(idx).float() - wanted).square().mean().sqrt())
                for name, way in made.items()
            }
        size = float(wanted.std())
        print(f"Batch {batch}, {n_new} new tokens, {args.rounds} rounds.\n")
        print(
            "| way               | tokens/s | against transformers | first, ms | makes, s |", end=""
        )
        print("  MB | logits off, share |")
        print(
            "| ----------------- | -------- | -------------------- | --------- | -------- |", end=""
        )
        print(" --- | ----------------- |")
        for name, way in made.items():
            ratio = [r[name][0] / r["transformers fp32"][0] for r in rounds]
            speed = statistics.median(r[name][0] for r in rounds)
            first = statistics.median(r[name][1] for r in rounds)
            spread = f"{statistics.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})"
            print(
                f"| {name:<17} | {speed:8.1f} | {spread:<20} | {first * 1000:9.0f} | "
                f"{way.seconds:8.1f} | {way.n_bytes / 1e6:3.0f} | {off[name] / size:17.1e} |"
            )
        print(flush=True)
        found[str(batch)] = {"rounds": rounds, "logits_off": off, "logits_std": size}
    return {"tokens": n_new, "prompt": PROMPT, "batches": found}


def products(args: argparse.Namespace, now: Callable[[], float]) -> dict[str, Any]:
    """Measure one pass over 12 matrices of 3072 × 768, more than a cache holds, by each kind."""
    torch.manual_seed(0)
    weights = [torch.randn(3072, 768) for _ in range(12)]
    low = [w.bfloat16() for w in weights]
    made = [lowered_linear(w, None) for w in low]
    made32 = [lowered_linear(w, None) for w in weights]
    rounded = [Int8Linear(*quantize(w), None) for w in weights]
    found: dict[str, Any] = {}
    for n in (1, 4, 8, 16, 20, 32, 64):
        x32 = torch.randn(n, 768)
        x = x32.bfloat16()
        kernel = int8_linear()
        kinds: dict[str, Callable[[], Any]] = {
            "F.linear fp32": lambda x=x32: [F.linear(x, w) for w in weights],
            "ours fp32": lambda x=x32: [layer(x) for layer in made32],
            "F.linear bf16": lambda x=x: [F.linear(x, w) for w in low],
            "ours bf16": lambda x=x: [layer(x) for layer in made],
            "bf16, widened": lambda x=x: [widened(x, w) for w in low],
            "int8, widened": lambda x=x: [widened(x, layer.q) * layer.scale for layer in rounded],
        }
        if kernel is not None:
            kinds["int8, its kernel"] = lambda x=x, product=kernel: [
                product(x, w.q, w.scale) for w in rounded
            ]
        taken: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(9):
            for name, kind in kinds.items():
                started = now()
                kind()
                taken[name].append((now() - started) / 12 * 1e6)
        if not found:
            print("Microseconds of one product, 3072 × 768, median.\n")
            print("| rows | " + " | ".join(kinds) + " |")
            print("| ---- |" + " --- |" * len(kinds))
        middle = [statistics.median(values) for values in taken.values()]
        print(f"| {n:4} | " + " | ".join(f"{value:.0f}" for value in middle) + " |", flush=True)
        found[str(n)] = taken
    print()
    return found


SIZES = ((4, 128, 1024), (6, 256, 4096), (6, 384, 8192), (8, 512, 8192), (12, 768, 50257))


def sizes(args: argparse.Namespace, now: Callable[[], float]) -> dict[str, Any]:
    """Measure 40 tokens of models of several sizes."""
    found: dict[str, Any] = {}
    print("Milliseconds a token, median.\n")
    print("| layers × width, vocabulary | million | plain fp32 | for_decoding fp32 | bf16 | int8 |")
    print("| -------------------------- | ------- | ---------- | ----------------- | ---- | ---- |")
    for layers, width, vocabulary in SIZES:
        torch.manual_seed(0)
        shape = {"n_layer": layers, "n_embd": width, "n_head": width // 32}
        model = GPT(GPTConfig(vocab_size=vocabulary, **shape)).eval()
        made = {"plain": model, **{w: for_decoding(model, w) for w in OURS}}
        idx = torch.randint(vocabulary, (1, PROMPT))
        taken: dict[str, list[float]] = {name: [] for name in made}
        for _ in range(args.rounds):
            for name, way in made.items():
                started = now()
                generate(way, idx, 40, temperature=0)
                taken[name].append((now() - started) / 40 * 1000)
        middle = " | ".join(f"{statistics.median(v):.2f}" for v in taken.values())
        named = f"{layers} × {width}, {vocabulary:,}"
        print(f"| {named:<26} | {model.num_parameters() / 1e6:7.1f} | {middle} |", flush=True)
        found[named] = taken
    print()
    return found


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--batches", type=positive, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--quick", action="store_true", help="2 rounds, 50 tokens")
    parser.add_argument("--cpu-time", action="store_true", help="count processor time")
    parser.add_argument("--products", action="store_true", help="products alone")
    parser.add_argument("--sizes", action="store_true", help="models of several sizes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON goes")
    args = parser.parse_args()
    args.rounds = min(args.rounds, 2) if args.quick else args.rounds
    torch.set_num_threads(args.threads)
    clock = "processor" if args.cpu_time else "wall-clock"
    now = time.process_time if args.cpu_time else time.perf_counter
    print(f"torch {torch.__version__}, {args.threads} threads, {clock} time\n")
    if args.products or args.sizes:
        measure = products if args.products else sizes
        with torch.no_grad():
            found = measure(args, now)
    else:
        found = generation(args, now)
    about = {"torch": torch.__version__, "threads": args.threads, "clock": clock}
    kind = "products" if args.products else "sizes" if args.sizes else "generation"
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / f"decode-{kind}-{time.strftime('%Y-%m-%d-%H%M')}.json"
    path.write_text(json.dumps({**about, kind: found}, indent=1) + "\n", encoding="utf-8")
    print(f"All samples: {path.name}")


if __name__ == "__main__":
    main()
