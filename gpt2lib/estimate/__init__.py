"""What a model and a run cost, before any of it is spent: parameters, FLOPs, bytes, time, money.

All of it is arithmetic on the configuration; torch is not imported. What an update takes on this
machine is played with the real parts, in `gpt2lib.training.memory`.
"""

from gpt2lib.estimate.counts import (
    count_parameters,
    forward_flops,
    kv_cache_bytes,
    memory,
    parameter_parts,
    training_flops,
)
from gpt2lib.estimate.gpus import gpu_peak

__all__ = [
    "count_parameters",
    "forward_flops",
    "gpu_peak",
    "kv_cache_bytes",
    "memory",
    "parameter_parts",
    "training_flops",
]
