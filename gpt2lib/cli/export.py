"""`gpt2lib export`: a model as transformers opens it."""

from __future__ import annotations

from dataclasses import dataclass

from gpt2lib.cli.terminal import Options


@dataclass(frozen=True)
class Export(Options):
    """Write a model and its tokenizer as a folder that transformers opens, with a model card.

    The class is GPT-2, GPTBigCode or Starcoder2; what none of them computes is refused. What LoRA
    has learned is added to the weights, or with --adapter written alone, as PEFT opens it.

    Attributes:
        run: a run, one of its checkpoints, a transformers folder, or a hub name such as gpt2.
        folder: the folder to make.
        licence: of the weights, for the model card, as the hub writes it: mit, cc-by-4.0.
        adapter: write the matrices of LoRA alone; the value is what PEFT loads under them, a hub
            name or an exported folder.
    """

    usage = "RUN FOLDER [--licence NAME] [--adapter BASE]"
    arguments = ("run", "folder")

    run: str
    folder: str
    licence: str | None = None
    adapter: str | None = None


def export(argv: list[str]) -> int:
    """Run `gpt2lib export RUN FOLDER [--licence NAME] [--adapter BASE]`."""
    options, _ = Export.read(argv)
    if options.adapter is not None:
        return _export_adapter(options, options.adapter)
    from gpt2lib.hub import export as export_model
    from gpt2lib.utils.formats import read_json

    folder = export_model(options.run, options.folder, licence=options.licence)
    (name,) = read_json(folder / "config.json")["architectures"]
    print(f"{folder} is written; transformers opens it as {name}:\n")
    print("  from transformers import pipeline")
    print(f'  pipeline("text-generation", {str(folder)!r})("...")')
    return 0


def _export_adapter(options: Export, base: str) -> int:
    """Write LoRA's matrices alone."""
    from gpt2lib.hub.exporting import export_adapter
    from gpt2lib.utils.errors import UserError

    if options.licence is not None:
        raise UserError("--licence is of a whole model; the card of an adapter names its base")
    folder = export_adapter(options.run, options.folder, base=base)
    print(f"{folder} is written; PEFT opens it beside {base}:\n")
    print("  from peft import AutoPeftModelForCausalLM")
    print(f"  AutoPeftModelForCausalLM.from_pretrained({str(folder)!r})")
    return 0
