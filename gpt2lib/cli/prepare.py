"""`gpt2lib prepare`: text turned into token files."""

from __future__ import annotations

from dataclasses import dataclass

from gpt2lib.cli.terminal import Options, command_line, print_table
from gpt2lib.config import DataConfig
from gpt2lib.config.schema import with_changes


@dataclass(frozen=True)
class Prepare(Options):
    """Turn text into token files, once; `gpt2lib train ... --data.source DIR` trains on them.

    Attributes:
        source: what --data.source of `gpt2lib train` takes.
        out: the folder to make.
    """

    usage = "SOURCE --out DIR [--data.field value]"
    arguments = ("source",)
    config, under = DataConfig, "data."
    skip = ("source", "mixture", "cache", "mask_documents")  # what training alone reads

    source: str
    out: str


def prepare(argv: list[str]) -> int:
    """Run `gpt2lib prepare SOURCE --out DIR [--data.field value]`."""
    options, changes = Prepare.read(argv)
    changes["data.source"] = options.source
    config = DataConfig.from_dict(with_changes({}, changes)["data"])
    from gpt2lib.data import prepare as prepare_data

    prepared = prepare_data(config, options.out)
    train, val = prepared.train.header, prepared.val.header if prepared.val else None
    info = prepared.info
    held = f"{val.n_tokens:,} tokens of {val.n_documents:,} documents" if val else "nothing"
    print_table(
        {
            "folder": str(prepared.folder),
            "text": f"{info['name']} ({info['licence']})",
            "tokenizer": f"{prepared.tokenizer.name}, {prepared.tokenizer.vocab_size:,} tokens",
            "to train on": f"{train.n_tokens:,} tokens of {train.n_documents:,} documents"
            + prepared.about_targets(),
            "held out": held + prepared.about_split(),
            **({"files": f"{n:,}"} if (n := info.get("files")) else {}),
            "bytes per token": f"{train.n_bytes / max(1, train.n_tokens):.2f}",
        }
    )
    if example := info.get("example"):
        print("\nA row, of which what is in [[ ]] is learned:\n")
        print(example)
    train_on = ("--data.source", prepared.folder, "--data.tokenizer", "auto")
    print(f"\nNext: {command_line('train', 'cpu', *train_on)}")
    return 0
