"""Estimated against measured memory of an update, on this machine's CPU or its GPU.

    python benchmarks/memory.py [--device cpu] [--gpt2]

Every row trains in a process of its own, three updates as the trainer makes them, and measures the
third one. "Live" is the peak of live tensor bytes, counted by the allocator. "Resident" is the
most that the system counted for the process in the first two updates (on a GPU: what PyTorch
reserved), less what it counted before the model was made. Ratios are of the estimate to live
bytes. On a CPU the estimate is an update played with empty tensors, and they should lie within 0.99
to 1.01; on a GPU it is a formula, which no GPU has tested.
`--gpt2` adds GPT-2 small with a block of 512, which needs about 5 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from contextlib import nullcontext
from typing import Any

MID = {"vocab_size": 4096, "block_size": 256, "n_layer": 8, "n_head": 8, "n_embd": 256}
SMALL = {"vocab_size": 65, "block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 128}
GPT2 = {"block_size": 512}

ROWS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("characters", SMALL, {"micro_batch": 16}),
    ("characters, dropout", {**SMALL, "dropout": 0.1}, {"micro_batch": 16}),
    ("mid", MID, {"micro_batch": 4}),
    ("mid, untied, no biases", {**MID, "tie_weights": False, "bias": False}, {"micro_batch": 4}),
    ("mid, dropout", {**MID, "dropout": 0.1}, {"micro_batch": 4}),
    ("mid, RoPE, 2 kv heads", {**MID, "position": "rope", "n_kv_head": 2}, {"micro_batch": 4}),
    ("mid, 1024, window 128", {**MID, "block_size": 1024, "window": 128}, {"micro_batch": 2}),
    ("mid, 2 × 4", MID, {"micro_batch": 4, "accumulation": 2}),
    ("mid, every block again", MID, {"micro_batch": 8, "checkpointing": 1}),
    ("mid, every 2nd again", MID, {"micro_batch": 8, "checkpointing": 2}),
    ("vocabulary of GPT-2", {**SMALL, "vocab_size": 50257}, {"micro_batch": 4}),
]
LARGE = [
    (f"GPT-2, batch {size}" + (", every block again" if again else ""), GPT2, setting)
    for size in (1, 2)
    for again in (0, 1)
    for setting in [{"micro_batch": size, "checkpointing": again}]
]


def measure(model: dict[str, Any], setting: dict[str, Any]) -> dict[str, int]:
    """Train three updates; return the bytes live in the third and resident in the others."""
    import psutil
    import torch
    from allocator import peak_allocated

    from gpt2lib.config import GPTConfig, OptimConfig
    from gpt2lib.model.gpt import GPT
    from gpt2lib.training.hardware import prepare_process
    from gpt2lib.training.optim import make_optimizer

    device = setting["device"]
    before = psutil.Process().memory_info().rss
    prepare_process()
    config = GPTConfig.from_dict(model)
    net = GPT(config).to(device).train()
    net.transformer.gradient_checkpointing = setting.get("checkpointing", 0)
    optimizer = make_optimizer(net, OptimConfig())
    shape = (setting.get("accumulation", 1), setting["micro_batch"], config.block_size)
    idx, targets = (torch.randint(config.vocab_size, shape, device=device) for _ in range(2))
    cast = torch.autocast(device, dtype=torch.bfloat16)

    def update() -> None:
        for i in range(shape[0]):
            with cast if setting["precision"] == "bf16" else nullcontext():
                loss, _ = net(idx[i], targets[i])
            loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    update()
    update()  # the second is the first with moments
    resident = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    moments = (t for state in optimizer.state.values() for t in state.values())
    if device == "cpu":
        live = peak_allocated(update, [*net.parameters(), *moments, idx, targets])
    else:
        torch.cuda.reset_peak_memory_stats()
        update()
        live, resident = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return {"live": live, "resident": resident}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--gpt2", action="store_true", help="also GPT-2 small")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*json.loads(args.one))))
        return
    from gpt2lib.config import GPTConfig, TrainConfig
    from gpt2lib.training.memory import update_memory

    print(
        "|                              | precision | estimated | live      | ratio | resident  |"
    )
    print(
        "| ---------------------------- | --------- | --------- | --------- | ----- | --------- |"
    )
    for name, model, how in ROWS + (LARGE if args.gpt2 else []):
        for precision in ("fp32", "bf16"):
            setting = {**how, "precision": precision, "device": args.device}
            command = [sys.executable, __file__, "--one", json.dumps([model, setting])]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            run = TrainConfig(
                model=GPTConfig.from_dict(model),
                precision=precision,
                device=args.device,
                gradient_checkpointing=how.get("checkpointing", 0),
            )
            size = how["micro_batch"]
            peak = update_memory(run, size * how.get("accumulation", 1)).peak(size)
            print(
                f"| {name:<28} | {precision:<9} | {peak / 1e6:6.1f} MB | "
                f"{found['live'] / 1e6:6.1f} MB | {peak / found['live']:5.3f} | "
                f"{found['resident'] / 1e6:6.0f} MB |",
                flush=True,
            )


if __name__ == "__main__":
    main()
