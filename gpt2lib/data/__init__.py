"""Documents become one memory-mapped token file, and the token file becomes batches."""

from gpt2lib.data.batches import IGNORE, batch, eval_batches, eval_starts
from gpt2lib.data.files import FORMAT, Header, TokenFile, dtype_for
from gpt2lib.data.order import sample_windows, windows_per_epoch
from gpt2lib.data.preparation import prepare
from gpt2lib.data.prepared import Prepared, is_prepared, open_prepared
from gpt2lib.data.writer import TokenWriter

__all__ = [
    "FORMAT",
    "IGNORE",
    "Header",
    "Prepared",
    "TokenFile",
    "TokenWriter",
    "batch",
    "dtype_for",
    "eval_batches",
    "eval_starts",
    "is_prepared",
    "open_prepared",
    "prepare",
    "sample_windows",
    "windows_per_epoch",
]
