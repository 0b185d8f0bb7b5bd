"""Text to token ids and back.

`BPE` is the byte-level byte-pair encoding to read, `FastBPE` the same through the `tokenizers`
library, `CharTokenizer` the one of the lecture, `gpt2_tokenizer()` GPT-2's own vocabulary. All
of them fit `Tokenizer`, and `load_tokenizer` finds the right one in a folder.
"""

from gpt2lib.tokenizer.base import EOT, Tokenizer
from gpt2lib.tokenizer.bpe import BPE
from gpt2lib.tokenizer.char import CharTokenizer
from gpt2lib.tokenizer.fast import FastBPE, train_bpe
from gpt2lib.tokenizer.gpt2_vocab import gpt2_tokenizer
from gpt2lib.tokenizer.load import load_tokenizer
from gpt2lib.tokenizer.merges import apply_merges, count_pairs, learn_merges, merge
from gpt2lib.tokenizer.pretokenizer import byte_to_unicode, pretokenize, to_byte_ids

__all__ = [
    "BPE",
    "EOT",
    "CharTokenizer",
    "FastBPE",
    "Tokenizer",
    "apply_merges",
    "byte_to_unicode",
    "count_pairs",
    "gpt2_tokenizer",
    "learn_merges",
    "load_tokenizer",
    "merge",
    "pretokenize",
    "to_byte_ids",
    "train_bpe",
]
