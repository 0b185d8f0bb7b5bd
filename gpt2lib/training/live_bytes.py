"""How many bytes of tensors live at once, measured exactly.

On a GPU, PyTorch's allocator keeps that number itself. On a CPU it does not, but its profiler can
be told to note every piece of memory that the allocator of tensors gives out and takes back, down
to the scratch space inside a kernel. Added up in order, these notes have an exact maximum.

Resident memory, what the system says a process occupies, is another thing: it holds Python,
PyTorch's code, and freed memory that was not given back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class Peak:
    """What was measured; filled in when the block ends.

    Attributes:
        bytes: the most bytes of tensors that lived at once.
        at_end: the bytes that live still.
        resident: the bytes that the process occupies at the end, as the system counts them.
    """

    def __init__(self) -> None:
        self.bytes = self.at_end = self.resident = 0


@contextmanager
def peak_tensor_bytes(already: Iterable[Tensor] = (), device: str = "cpu") -> Iterator[Peak]:
    """Measure the peak of live tensor bytes in a block of code.

        with peak_tensor_bytes(model.parameters()) as peak:
            model(idx, targets)[0].backward()
        peak.bytes

    On a CPU, what lives before is not known and has to be named; on a GPU all of it is counted.
    A tensor made before and freed inside counts to the end. The notes of a CPU are kept for the
    thread that enters the block, which is also the one that runs its backward pass.

    Args:
        already: tensors that live before the block, counted from its beginning.
        device: cpu or cuda.

    Yields:
        A `Peak`, whose numbers are there once the block has ended.
    """
    import psutil

    peak = Peak()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        yield peak
        torch.cuda.synchronize()
        peak.bytes = torch.cuda.max_memory_allocated()
        peak.at_end = torch.cuda.memory_allocated()
    else:
        before = sum(
            {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in already}.values()
        )
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler writes lines to stderr
        cpu = torch.profiler.ProfilerActivity.CPU
        # The profiler records only memory, so that a long block stays short.
        with torch.profiler.profile(activities=[cpu], profile_memory=True) as profiler:
            yield peak
        peak.bytes, peak.at_end = _highest(_notes(profiler), before)
    peak.resident = psutil.Process(os.getpid()).memory_info().rss


def _notes(profiler: Any) -> list[tuple[int, int, int]]:
    """Return what the allocator noted, in order: time, address, and bytes, below 0 when freed."""
    results = profiler.profiler.kineto_results
    found, stack = [], list(results.experimental_event_tree())
    while stack:
        event = stack.pop()
        stack += event.children
        fields = event.extra_fields
        if hasattr(fields, "alloc_size") and fields.device.type == "cpu":
            found.append((event.start_time_ns, fields.ptr, fields.alloc_size))
    return found


def _highest(notes: list[tuple[int, int, int]], before: int) -> tuple[int, int]:
    live: dict[int, int] = {}
    total = highest = before
    for _, address, size in sorted(notes):
        if size > 0:
            live[address] = size
            total += size
            highest = max(highest, total)
        else:
            total -= live.pop(address, 0)
    return highest, total
