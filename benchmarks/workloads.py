"""What is measured: shapes, peers, and the project's own goals."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Workload:
    """Updates of one shape.

    Attributes:
        title: what the table is called.
        shape: the model, in GPTConfig's names.
        batch: sequences in an update.
        peers: who takes part, each with us in turn.
        rounds: turns of each.
        nanogpt_rounds: turns with nanoGPT, whom most goals name.
        steps: updates in a turn; their median is one sample.
        warm_up: updates before, not counted.
        checkpointing: whether ours computes activations again in the backward pass.
    """

    title: str
    shape: dict[str, int]
    batch: int
    peers: tuple[str, ...] = ("nanoGPT", "transformers", "Trainer", "litgpt", "llms-from-scratch")
    rounds: int = 5
    nanogpt_rounds: int = 5
    steps: int = 1
    warm_up: int = 1
    checkpointing: bool = False

    def rounds_with(self, peer: str) -> int:
        """Return how many turns a peer has."""
        return self.nanogpt_rounds if peer == "nanoGPT" else self.rounds

    def quick(self) -> Workload:
        """Return a look at the same shape: two rounds of one update."""
        return replace(self, rounds=2, nanogpt_rounds=2, steps=1, warm_up=1)


def shape(
    n_layer: int, n_head: int, n_embd: int, block_size: int, vocab_size: int
) -> dict[str, int]:
    """Return a shape in GPTConfig's names."""
    return {
        "n_layer": n_layer,
        "n_head": n_head,
        "n_embd": n_embd,
        "block_size": block_size,
        "vocab_size": vocab_size,
    }


CPU = {
    "a": Workload(
        "(a) 4 layers, 128 wide, block 64, batch 12, 65 symbols",
        shape(4, 4, 128, 64, 65), batch=12, rounds=7, nanogpt_rounds=7, steps=10, warm_up=10,
    ),
    "b": Workload(
        "(b) 6 layers, 384 wide, block 256, batch 8, 50,257 tokens",
        shape(6, 6, 384, 256, 50257), batch=8, rounds=3,
    ),
    "c": Workload(
        "(c) GPT-2 124M, block 512, batch 2",
        shape(12, 12, 768, 512, 50257), batch=2, rounds=2,
    ),
    "checkpointing": Workload(
        "GPT-2 124M, block 512, batch 4: ours computes activations again",
        shape(12, 12, 768, 512, 50257), batch=4, rounds=2, checkpointing=True,
        peers=("transformers",),
    ),
}  # fmt: skip

GPU = {
    "a": CPU["a"],
    "b": replace(CPU["b"], rounds=5, steps=10, warm_up=10),
    "c": replace(
        CPU["c"], title="(c) GPT-2 124M, block 1024, batch 12", batch=12, rounds=5, steps=10,
        warm_up=10, shape=shape(12, 12, 768, 1024, 50257),
    ),
    "checkpointing": replace(
        CPU["checkpointing"], title="GPT-2 124M, block 1024, batch 16: ours computes activations "
        "again", batch=16, shape=shape(12, 12, 768, 1024, 50257), rounds=5, steps=10, warm_up=10,
    ),
}  # fmt: skip

SHIPPED, TUNED, AGAIN = "as shipped", "bf16 + allocator", "as shipped, activations again"


def ways(workload: Workload, peer: str, device: str) -> list[str]:
    """Return how a peer takes part."""
    if workload.checkpointing:
        return [SHIPPED, AGAIN]
    return [SHIPPED] if (peer, device) == ("nanoGPT", "cuda") else [SHIPPED, TUNED]


@dataclass(frozen=True)
class Goal:
    """One of the project's own goals: how ours should stand to a peer.

    Attributes:
        workload: its key.
        peer: whom ours is compared with.
        way: how that one takes part.
        of: "speed" (times as fast, at least), "memory" (share of its memory, at most), or "mfu"
            (ours alone, at least).
        value: the number.
    """

    workload: str
    peer: str
    way: str
    of: str
    value: float


CPU_GOALS = (
    Goal("a", "nanoGPT", SHIPPED, "speed", 1.4),
    Goal("b", "nanoGPT", SHIPPED, "speed", 3.0),
    Goal("c", "nanoGPT", SHIPPED, "speed", 2.6),
    Goal("b", "nanoGPT", TUNED, "speed", 1.15),
    Goal("c", "nanoGPT", TUNED, "speed", 1.05),
    Goal("b", "Trainer", SHIPPED, "speed", 3.0),
    Goal("b", "nanoGPT", SHIPPED, "memory", 0.65),
    Goal("c", "nanoGPT", SHIPPED, "memory", 0.95),
    Goal("checkpointing", "transformers", SHIPPED, "memory", 0.55),
)
GPU_GOALS = (
    Goal("c", "nanoGPT", SHIPPED, "speed", 1.2),
    Goal("c", "nanoGPT", SHIPPED, "memory", 0.6),
    Goal("c", "gpt2lib", SHIPPED, "mfu", 0.5),
)
