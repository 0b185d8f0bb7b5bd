"""Run by an interpreter that has TransformerLens: its activations of an exported folder, in a file.

python lens_activations.py FOLDER IDS.safetensors OUT.safetensors
"""

import sys

import torch
from safetensors.torch import load_file, save_file
from transformer_lens.model_bridge import TransformerBridge


def main(folder: str, ids: str, out: str) -> None:
    """Write streams, heads, patterns, MLPs and logits, and the logits without head 1.2."""
    bridge = TransformerBridge.boot_transformers(folder, device="cpu")
    idx = load_file(ids)["idx"]
    n_layer = bridge.cfg.n_layers

    def silence(z: torch.Tensor, hook: object) -> torch.Tensor:
        z = z.clone()
        z[:, :, 2] = 0
        return z

    with torch.no_grad():
        logits, cache = bridge.run_with_cache(idx)
        ablated = bridge.run_with_hooks(idx, fwd_hooks=[("blocks.1.attn.hook_z", silence)])
    found = {"logits": logits, "without 1.2": ablated}
    found[f"stream {n_layer}"] = cache[f"blocks.{n_layer - 1}.hook_resid_post"]
    for layer in range(n_layer):
        found[f"stream {layer}"] = cache[f"blocks.{layer}.hook_resid_pre"]
        found[f"heads {layer}"] = cache[f"blocks.{layer}.attn.hook_z"]
        found[f"pattern {layer}"] = cache[f"blocks.{layer}.attn.hook_pattern"]
        found[f"mlp {layer}"] = cache[f"blocks.{layer}.hook_mlp_out"]
    save_file({name: t.contiguous().float() for name, t in found.items()}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
