"""What a model and a run cost, before any of it is spent: parameters, FLOPs, bytes, tokens.

All of it is arithmetic on the configuration; torch is not imported.
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
from gpt2lib.estimate.run import estimate, resolved_model

__all__ = [
    "count_parameters",
    "estimate",
    "forward_flops",
    "gpu_peak",
    "kv_cache_bytes",
    "memory",
    "parameter_parts",
    "resolved_model",
    "training_flops",
]
