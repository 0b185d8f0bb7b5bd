"""`gpt2lib prepare` and `gpt2lib estimate`: what can be done before training."""

from __future__ import annotations

from gpt2lib.cli.options import Parser
from gpt2lib.cli.output import print_table, set_up_logging
from gpt2lib.config import DataConfig


def prepare(argv: list[str]) -> int:
    """Run `gpt2lib prepare SOURCE --out DIR [--data.field value]`."""
    parser = Parser(
        "prepare",
        "SOURCE --out DIR [--data.field value]",
        "Turn text into token files, once; `gpt2lib train ... --data.source DIR` trains on them.",
        DataConfig,
    )
    parser.add_argument("source", help="what --data.source of `gpt2lib train` takes")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to make")
    parser.add_fields("data", skip=("source", "cache"))
    values = parser.read(argv)
    set_up_logging()
    from gpt2lib.data import prepare as prepare_data

    config = DataConfig.from_dict({**values["data"], "source": values["source"]})
    prepared = prepare_data(config, values["out"])
    train, val = prepared.train.header, prepared.val.header if prepared.val else None
    print_table(
        {
            "folder": str(prepared.folder),
            "text": f"{prepared.info['name']} ({prepared.info['licence']})",
            "tokenizer": f"{prepared.tokenizer.name}, {prepared.tokenizer.vocab_size:,} tokens",
            "to train on": f"{train.n_tokens:,} tokens of {train.n_documents:,} documents",
            "held out": f"{val.n_tokens:,} tokens of {val.n_documents:,} documents"
            if val
            else "nothing",
            "bytes per token": f"{train.n_bytes / max(1, train.n_tokens):.2f}",
        }
    )
    print(f"\nNext: gpt2lib train cpu --data.source {prepared.folder} --data.tokenizer auto")
    return 0
