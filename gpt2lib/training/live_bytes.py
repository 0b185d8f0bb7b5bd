"""How many bytes of tensors live at once: measured, or played with empty tensors.

PyTorch hands every operation on tensors to a *dispatch mode*, which may look at the result. This
one counts: a tensor's bytes lie in its storage, which its views share, and which is freed with the
last of them. The largest sum is the peak, which decides whether a run fits.

Under `empty_tensors` the same code runs with tensors that have a shape and no memory, and the count
is an estimate. Neither sees the scratch space inside of an operation. Both see one copy too many
of a tied matrix when its two gradients meet: autograd adds in place only where nobody watches.
Resident memory, what the system says a process occupies, is more: Python, PyTorch's code, freed
memory not given back.

Reference: `torch.distributed._tools.mem_tracker.MemTracker`, the same with more bookkeeping.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gpt2lib.config import TrainConfig
from gpt2lib.model.gpt import GPT
from gpt2lib.training.methods import choose_parameters
from gpt2lib.training.optim import make_optimizer


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of living tensors while a block of code runs.

        with LiveBytes(model.parameters()) as live:
            model(idx, targets)[0].backward()
        live.peak

    Args:
        already: tensors that live before the block, counted from its beginning. Any other is
            counted once an operation returns it, or a view of it.

    Attributes:
        kind: what bytes that come to life from now on are called.
        live: the bytes of each kind that live now.
        peaks: for each kind, `live` when there was most of everything while `kind` was that.
    """

    def __init__(self, already: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kind = "tensors"
        self.live: Counter[str] = Counter()
        self.peaks: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._storages: set[int] = set()
        for tensor in already:
            self._meet(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, and look at what it returns."""
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, Tensor):
                self._meet(made)
        return out

    def _meet(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()  # one object, however many views there are
        if id(storage) not in self._storages:
            self._storages.add(id(storage))
            weakref.finalize(storage, self._part, id(storage), self.kind, storage.nbytes())
            self.live[self.kind] += storage.nbytes()
            if self.now > self.peaks[self.kind].total():
                self.peaks[self.kind] = self.live.copy()

    def _part(self, storage: int, kind: str, size: int) -> None:
        self._storages.discard(storage)
        self.live[kind] -= size

    @property
    def now(self) -> int:
        """Bytes that live now."""
        return self.live.total()

    @property
    def peak(self) -> int:
        """The most bytes that lived at once."""
        return max((parts.total() for parts in self.peaks.values()), default=0)


def empty_tensors() -> AbstractContextManager[Any]:
    """Return a mode whose tensors have a shape, a dtype and a device, and no memory.

    It is what `torch.compile` traces with, and has no public name (torch 2.13).
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode()


def _when_its_gradient_comes(vectors: Tensor, live: LiveBytes) -> None:
    """Call what comes to life "look-up" once the backward pass has reached the tokens' vectors."""
    if not vectors.requires_grad:  # it never comes
        return
    vectors.register_hook(  # type: ignore[no-untyped-call]
        lambda _: setattr(live, "kind", "look-up")
    )


def play(
    config: TrainConfig, size: int, share: int, later: bool = False, empty: bool = True
) -> dict[str, Counter[str]]:
    """Make an update as the training loop does, and count the bytes that live at its moments.

    Played is the last micro-batch of any update but a run's first: the optimiser's moments are
    there. Random state is left as it was.

    Args:
        config: the run; device and precision are resolved, the vocabulary is the true one.
        size: B, sequences in a micro-batch.
        share: sequences of one process in an update.
        later: whether there are gradients already, of the micro-batches before this one.
        empty: whether to play with empty tensors; others are made on the run's device.
    """
    device, shape = config.device, (share, config.model.block_size)  # (share, T)
    lower = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.precision)
    with (
        torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []),
        empty_tensors() if empty else nullcontext(),
        LiveBytes() as live,
    ):
        with torch.device(device):
            live.kind = "weights"
            model = GPT(config.model).train()
            choose_parameters(model, config.method)
            live.kind = "tokens"
            n_tensors = 3 if config.data.mask_documents else 2  # idx, targets, documents
            tokens = [torch.zeros(shape, dtype=torch.long) for _ in range(n_tensors)]
        model.transformer.gradient_checkpointing = config.gradient_checkpointing
        # The trunk ends with this norm: what comes to life after it belongs to the loss.
        model.transformer.ln_f.register_forward_hook(lambda *_: setattr(live, "kind", "loss"))
        model.transformer.wte.register_forward_hook(
            lambda _module, _args, vectors: _when_its_gradient_comes(vectors, live)
        )
        live.kind = "gradients"
        for p in (p for p in model.parameters() if p.requires_grad):
            p.grad = torch.zeros_like(p)
        live.kind = "optimizer"
        optimizer = make_optimizer(model, config.optim, config.precision)
        optimizer.step()  # makes the moments
        if not later:
            optimizer.zero_grad()
        live.peaks.clear()
        live.kind = "activations"
        with nullcontext() if lower is None else torch.autocast(device, dtype=lower):
            loss, n_targets = model(*(part[:size] for part in tokens))
        live.kind = "gradients"
        (loss / n_targets).backward()
        live.kind = "optimizer"
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.grad_clip or math.inf)
        optimizer.step()
        optimizer.zero_grad()
    return _moments(live, "Muon's step" if config.optim.name == "muon" else "AdamW's step")


def _moments(live: LiveBytes, step: str) -> dict[str, Counter[str]]:
    """Return the peaks by the moments of an update, whose last one is called `step`."""
    names = {
        "activations": "forward pass",
        "gradients": "backward pass",
        "look-up": "backward pass of the embeddings",
        "optimizer": step,
    }
    for parts in live.peaks.values():
        parts["gradients"] += parts.pop("look-up", 0)
    return {names.get(kind, kind): parts for kind, parts in live.peaks.items()}
