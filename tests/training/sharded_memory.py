"""Measured beside estimated memory of FSDP2 on the CPU; started by tests/estimate/test_update.py.

    torchrun --nproc_per_node 2 tests/training/sharded_memory.py

Two processes train three updates of small models. Prints a line of JSON for each.
"""

from __future__ import annotations

import json

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from gpt2lib.config import GPTConfig, TrainConfig
from gpt2lib.estimate.update import UpdateMemory
from gpt2lib.model.gpt import GPT
from gpt2lib.training.live_bytes import LiveBytes

DEEP = GPTConfig(vocab_size=512, block_size=64, n_layer=8, n_head=4, n_embd=256)
NARROW = DEEP.replace(n_layer=16, n_embd=128)
SIZE = 2
"""Sequences in a micro-batch."""
CASES = [(DEEP, 1, "fp32"), (DEEP, 2, "fp32"), (DEEP, 1, "bf16"), (NARROW, 1, "fp32")]
"""Shape, micro-batches in an update, precision."""


def measure(config: GPTConfig, times: int, precision: str) -> int:
    """Return the most bytes that lived in this process during the third update."""
    model = GPT(config)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for block in model.transformer.h:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)  # no copies of its own
    idx = torch.randint(config.vocab_size, (times, SIZE, config.block_size))

    def update() -> None:
        for i in range(times):
            model.set_requires_gradient_sync(i == times - 1)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss, _ = model(idx[i], idx[i])
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    update()
    update()
    model.reshard()
    states = (t for state in optimizer.state.values() for t in state.values())
    held = [getattr(t, "_local_tensor", t) for t in (*model.parameters(), *states)]
    with LiveBytes([*held, idx]) as live:
        update()
    return live.peak


def estimate(model: GPTConfig, times: int, precision: str) -> int:
    """Return what the formula says of one of these processes."""
    config = TrainConfig(model=model, precision=precision, device="cpu")
    n = dist.get_world_size()
    return UpdateMemory(config, SIZE * times, n, n).peak(SIZE)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    for case in CASES:
        row = {"measured": measure(*case), "estimated": estimate(*case)}
        if dist.get_rank() == 0:
            print(json.dumps(row), flush=True)
    dist.destroy_process_group()
