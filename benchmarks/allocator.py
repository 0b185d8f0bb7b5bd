"""How many bytes of tensors live at once, told by PyTorch's allocator: a check of `LiveBytes`.

The profiler can note every piece of memory that the allocator of CPU tensors gives out and takes
back, down to the scratch space inside of a kernel. Added up in order, the notes have an exact
maximum. Three private names of PyTorch are read here (torch 2.13), so the library does not do it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def peak_allocated(run: Callable[[], object], already: Iterable[Tensor]) -> int:
    """Return the peak of live tensor bytes while `run` runs.

    Args:
        run: what to measure; its notes are those of the calling thread.
        already: the tensors that live before, which the allocator does not know.
    """
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in already}
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler writes lines to stderr
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        run()
    stack = list(profiler.profiler.kineto_results.experimental_event_tree())
    notes = []  # time, address, and bytes, below 0 when freed
    while stack:
        event = stack.pop()
        stack += event.children
        fields = event.extra_fields
        if hasattr(fields, "alloc_size") and fields.device.type == "cpu":
            notes.append((event.start_time_ns, fields.ptr, fields.alloc_size))
    live: dict[int, int] = {}
    total = highest = sum(storages.values())
    for _, address, size in sorted(notes):
        if size > 0:
            live[address] = size
            total += size
            highest = max(highest, total)
        else:  # what was there before counts to the end
            total -= live.pop(address, 0)
    return highest
