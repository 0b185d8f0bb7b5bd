"""Documents become memory-mapped rows of tokens, and these become batches."""

from gpt2lib.data.batches import document_ids, eval_starts, masking_eot
from gpt2lib.data.loader import batch, eval_batches
from gpt2lib.data.mixture import Joined, Mixture, sources_of
from gpt2lib.data.order import sample_windows, windows_per_epoch
from gpt2lib.data.preparation import prepare
from gpt2lib.data.prepared import Prepared, is_prepared, open_prepared
from gpt2lib.data.shards import SHARD, JoinedTokens, Shard
from gpt2lib.data.token_files import FORMAT, Header, TokenFile, dtype_for
from gpt2lib.data.writer import TokenWriter

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
