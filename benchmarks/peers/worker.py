"""One peer in a process of its own: builds its model, then makes updates when asked.

    python benchmarks/peers/worker.py SPEC

SPEC is JSON: `peer`, `shape` (GPTConfig's names), `batch`, `device`, `tuned` (bf16 and our
allocator's settings), and, where they apply, `path` (nanoGPT's), `checkpointing`, `precision`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from channel import Channel

FULLY_SHIPPED = {"nanoGPT", "litgpt"}
"""Those whose own command compiles and uses bf16 on a GPU."""


def prepare(spec: dict[str, Any]) -> None:
    """Decide precision and compilation; make our settings where they are wanted."""
    from gpt2lib.utils.process import keep_freed_memory

    ours, on_gpu, tuned = spec["peer"] == "gpt2lib", spec["device"] == "cuda", spec["tuned"]
    if tuned or ours:
        keep_freed_memory()  # before the first tensor
    shipped = spec["peer"] in FULLY_SHIPPED
    # litgpt's command takes bf16 on a CPU, too.
    spec["bf16"] = tuned or (shipped and on_gpu) or spec["peer"] == "litgpt"
    spec["compile"] = on_gpu and (tuned or ours or shipped)
    if ours:
        from gpt2lib.training.hardware import prepare_process

        prepare_process()


def main() -> None:
    """Serve until stdin ends."""
    channel, spec = Channel(), json.loads(sys.argv[1])
    channel.device = spec["device"]
    prepare(spec)
    import torch

    if (spec["tuned"] or spec["peer"] in FULLY_SHIPPED) and spec["device"] == "cuda":
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    serve(channel, spec)


def serve(channel: Channel, spec: dict[str, Any]) -> None:
    """Build what the specification names, and make its updates."""
    from models import BY_HAND, updates
    from trainers import batches, ours, transformers_trainer

    data = batches(spec)
    with tempfile.TemporaryDirectory() as folder:
        if spec["peer"] == "Trainer":
            transformers_trainer(spec, data, Path(folder), channel)
        elif spec["peer"] == "gpt2lib":
            ours(spec, data, Path(folder), channel)
        else:
            peer = BY_HAND[spec["peer"]](spec)
            count = sum(p.numel() for p in peer.model.parameters())
            channel.say(ready=True, parameters=count, bf16=spec["bf16"])
            channel.serve(updates(peer, spec, data))


if __name__ == "__main__":
    main()
