"""Where text comes from: a corpus by name, files of every kind, a Hugging Face dataset, strings.

Everything becomes a `Corpus`, which yields documents in two splits: those to train on and those
held out. A new kind of source is one function that returns a `Corpus`. What reads a table, a
dataset (`hf`) or a corpus with a name (`named`) is imported only when it is met.
"""

from gpt2lib.data.sources.corpus import Corpus
from gpt2lib.data.sources.files import read_text
from gpt2lib.data.sources.iterables import corpus_from_iterable, corpus_from_texts
from gpt2lib.data.sources.load import corpus_from_files, documents, found_from, load_corpus
from gpt2lib.data.sources.split import held_out

__all__ = [
    "Corpus",
    "corpus_from_files",
    "corpus_from_iterable",
    "corpus_from_texts",
    "documents",
    "found_from",
    "held_out",
    "load_corpus",
    "read_text",
]
