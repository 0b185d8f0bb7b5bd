"""Measured beside estimated memory of FSDP2 on the CPU; started by test_budget.py.

    torchrun --nproc_per_node 2 tests/sharded_memory.py

Two processes train three updates of small models. Prints a line of JSON for each.
"""

from __future__ import annotations

import json
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from gpt2lib.config import GPTConfig
from gpt2lib.estimate.sharded import sharded_peak
from gpt2lib.estimate.simulated import Setting
from gpt2lib.model.gpt import GPT
from gpt2lib.training.live_bytes import peak_tensor_bytes

DEEP = GPTConfig(vocab_size=512, block_size=64, n_layer=8, n_head=4, n_embd=256)
NARROW = DEEP.replace(n_layer=16, n_embd=128)
CASES = [
    (DEEP, Setting(2)),
    (DEEP, Setting(2, accumulation=2)),
    (DEEP, Setting(2, precision="bf16")),
    (NARROW, Setting(2)),
]


def measure(config: GPTConfig, setting: Setting) -> int:
    """Return the most bytes that lived in this process during the third update."""
    model = GPT(config)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for block in model.transformer.h:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)  # no copies of its own
    times = setting.accumulation
    idx = torch.randint(config.vocab_size, (times, setting.micro_batch, config.block_size))

    def update() -> None:
        for i in range(times):
            model.set_requires_gradient_sync(i == times - 1)
            low = setting.precision == "bf16"
            with torch.autocast("cpu", torch.bfloat16) if low else nullcontext():
                loss, _ = model(idx[i], idx[i])
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    update()
    update()
    model.reshard()
    states = (t for state in optimizer.state.values() for t in state.values())
    held = [getattr(t, "_local_tensor", t) for t in (*model.parameters(), *states)]
    with peak_tensor_bytes([*held, idx]) as peak:
        update()
    return peak.bytes


if __name__ == "__main__":
    dist.init_process_group("gloo")
    for config, setting in CASES:
        row = {
            "measured": measure(config, setting),
            "estimated": sharded_peak(config, setting, dist.get_world_size()),
        }
        if dist.get_rank() == 0:
            print(json.dumps(row), flush=True)
    dist.destroy_process_group()
