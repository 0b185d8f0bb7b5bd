"""What data sheets say of GPUs: how fast they multiply at most, and how much they hold."""

from __future__ import annotations

GPUS: tuple[tuple[str, dict[str, float]], ...] = (
    ("B200", {"bf16": 2250e12, "fp16": 2250e12, "tf32": 1125e12, "fp32": 75e12}),
    ("H200", {"bf16": 989.5e12, "fp16": 989.5e12, "tf32": 494.7e12, "fp32": 67e12}),
    ("H100 NVL", {"bf16": 835.5e12, "fp16": 835.5e12, "tf32": 417.5e12, "fp32": 60e12}),
    ("H100 PCIe", {"bf16": 756e12, "fp16": 756e12, "tf32": 378e12, "fp32": 51e12}),
    ("H100", {"bf16": 989.5e12, "fp16": 989.5e12, "tf32": 494.7e12, "fp32": 67e12}),
    ("A100", {"bf16": 312e12, "fp16": 312e12, "tf32": 156e12, "fp32": 19.5e12}),
    ("L40S", {"bf16": 362e12, "fp16": 362e12, "tf32": 183e12, "fp32": 91.6e12}),
    ("L4", {"bf16": 121e12, "fp16": 121e12, "tf32": 60e12, "fp32": 30.3e12}),
    ("T4", {"fp16": 65e12, "fp32": 8.1e12}),
    ("V100-PCIE", {"fp16": 112e12, "fp32": 14e12}),
    ("V100", {"fp16": 125e12, "fp32": 15.7e12}),
    ("RTX 4090", {"bf16": 165.2e12, "fp16": 165.2e12, "tf32": 82.6e12, "fp32": 82.6e12}),
    ("RTX 3090", {"bf16": 71e12, "fp16": 71e12, "tf32": 35.6e12, "fp32": 35.6e12}),
)
"""Part of a GPU's name, the more special one first, and its dense peaks in FLOP/s.

Matrix units with sums in float32; where a data sheet prints the rate "with sparsity" only, half of
it. Reference: NVIDIA's data sheets of B200 (HGX, one of eight), H200, H100 (SXM, PCIe, NVL), A100,
L40S, L4, T4 and V100, and appendix A of its Ada and Ampere GA102 whitepapers for the RTX 4090 and
RTX 3090.
"""

MEMORY = {
    **{"B200": 180e9, "H200": 141e9, "H100 NVL": 94e9, "H100 PCIe": 80e9, "H100": 80e9},
    **{"A100": 40e9, "L40S": 48e9, "L4": 24e9, "T4": 16e9, "V100-PCIE": 16e9, "V100": 16e9},
    **{"RTX 4090": 24e9, "RTX 3090": 24e9},
}
"""Bytes of each; A100 and V100 are sold with twice as much, too. Reference: as for `GPUS`."""


def known_gpu(name: str) -> str | None:
    """Return which GPU of the table is meant; None for an unknown one.

    Args:
        name: as in the table, in any case, or what `torch.cuda.get_device_name` returns, such as
            "NVIDIA A100-SXM4-80GB".
    """
    words = name.lower().replace("-", " ").split()
    for known, _ in GPUS:
        wanted = known.lower().replace("-", " ").split()
        places = range(len(words) - len(wanted) + 1)
        if any(words[i : i + len(wanted)] == wanted for i in places):
            return known
    return None


def gpu_peak(name: str, precision: str) -> float | None:
    """Return the peak of a GPU by its name, in FLOP/s; None for an unknown one.

    Args:
        name: as `known_gpu` takes it.
        precision: bf16, fp16, tf32 or fp32; a GPU without TF32 computes in fp32 instead.
    """
    known = known_gpu(name)
    if known is None:
        return None
    peaks = dict(GPUS)[known]
    return peaks.get(precision, peaks["fp32"] if precision == "tf32" else None)
