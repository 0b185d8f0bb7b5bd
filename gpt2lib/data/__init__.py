"""Documents become memory-mapped rows of tokens, and these become batches."""

from gpt2lib.data.joined import JoinedTokens
from gpt2lib.data.loader import batch, document_ids, eval_batches, masking_eot
from gpt2lib.data.mixture import Joined, Mixture
from gpt2lib.data.order import eval_starts, sample_windows, windows_per_epoch
from gpt2lib.data.preparation import (
    Prepared,
    is_prepared,
    open_prepared,
    prepare,
    sources_of,
)
from gpt2lib.data.token_files import FORMAT, Header, Shard, TokenFile, dtype_for
from gpt2lib.data.writer import SHARD, TokenWriter

__all__ = [
    "FORMAT",
    "SHARD",
    "Header",
    "Joined",
    "JoinedTokens",
    "Mixture",
    "Prepared",
    "Shard",
    "TokenFile",
    "TokenWriter",
    "batch",
    "document_ids",
    "dtype_for",
    "eval_batches",
    "eval_starts",
    "is_prepared",
    "masking_eot",
    "open_prepared",
    "prepare",
    "sample_windows",
    "sources_of",
    "windows_per_epoch",
]
