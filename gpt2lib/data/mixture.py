"""Several sources in one run, each with its share of the samples.

Every source is prepared by itself with one common tokenizer, so that other weights encode nothing
again. `Joined` reads their files one behind the other, and `Mixture` says which window of which
source a sample is: a function of the sample's number, as with a single source (`order.py`). A
window never reaches from one source into the next.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpt2lib.config import DataConfig
from gpt2lib.data.encode import learn_tokenizer
from gpt2lib.data.joined import JoinedTokens
from gpt2lib.data.order import interleave, whole_shares
from gpt2lib.data.sources.corpus import Corpus, digest
from gpt2lib.data.token_files import FORMAT, LEARNED, TokenFile, dtype_for
from gpt2lib.data.writer import alone
from gpt2lib.tokenizer import Tokenizer, load_tokenizer
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import atomic_folder

_log = logging.getLogger(__name__)


class Joined(TokenFile):
    """Token files of one tokenizer, read one behind the other.

    Attributes:
        parts: the files, in order.
        header: the sums of theirs; `source` is one fingerprint for all.
        tokens: all ids, as one row.

    Args:
        name: what to call them together in messages.
        parts: the files; at least one.
        facts: what else determines how they are read, for the fingerprint.
    """

    parts: tuple[TokenFile, ...] = ()

    def __init__(self, name: str, parts: Sequence[TokenFile], facts: Sequence[str] = ()) -> None:
        self.parts, self.facts = tuple(parts), tuple(facts)
        self.path = self.parts[0].path
        headers = [part.header for part in self.parts]
        counts = ("n_tokens", "n_documents", "n_bytes", "n_scored_bytes")
        self.header = replace(
            headers[0],
            name=name,
            **{count: sum(getattr(header, count) for header in headers) for count in counts},
            source=digest("joined", *(header.source for header in headers), *self.facts),
            shards=tuple(shard for header in headers for shard in header.shards),
        )
        for part in self.parts:
            part.check_tokenizer(self.header.tokenizer)
        self.tokens = JoinedTokens([part.tokens for part in self.parts])
        marks = [_marks_of(part) for part in self.parts]
        is_marked = any(part.marks is not None for part in self.parts)
        self.marks = JoinedTokens(marks) if is_marked else None
        self.first = np.cumsum([0, *map(len, self.parts)])[:-1]  # of each file, in the joined row

    def windows(self, block_size: int, seed: int, indices: ArrayLike) -> NDArray[np.int64]:
        """Refuse to draw samples: the files have no weights."""
        raise TypeError("joined files have no order of samples; a Mixture has")

    @property
    def n_targets(self) -> int:
        """How many tokens are learned in a pass over all files."""
        return sum(part.n_targets for part in self.parts)

    def eval_windows(self, block_size: int) -> NDArray[np.int64]:
        """Return where the windows of an evaluation start, file by file."""
        each = zip(self.first, self.parts, strict=True)
        return np.concatenate([first + part.eval_windows(block_size) for first, part in each])

    def window_ends(self, starts: NDArray[np.int64], block_size: int) -> NDArray[np.int64]:
        """Return up to where windows may be read; none leaves the file that it starts in."""
        number = np.searchsorted(self.first, starts, side="right") - 1
        ends = np.empty_like(starts)
        for k, part in enumerate(self.parts):
            mine = number == k
            ends[mine] = self.first[k] + part.window_ends(starts[mine] - self.first[k], block_size)
        return ends

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the files, which pickle as their paths."""
        return type(self), (self.name, self.parts, self.facts)


class Mixture(Joined):
    """Token files, each with its share of the samples.

    The samples of a source come in the very order that it has alone, and its epochs are its own:
    of a small source with a large weight more epochs are seen.

    Args:
        parts: the training files, by the name of their source.
        weights: the weight of each; only their ratios matter.
    """

    def __init__(self, parts: Mapping[str, TokenFile], weights: Mapping[str, float]) -> None:
        names = sorted(parts)
        self.weights = {name: weights[name] for name in names}
        self.shares = whole_shares(list(self.weights.values()))
        total = sum(self.weights.values())
        said = ", ".join(f"{w / total:.3g} {name}" for name, w in self.weights.items())
        super().__init__(
            f"the mixture of {said}", [parts[name] for name in names], [*map(str, self.shares)]
        )

    def windows(self, block_size: int, seed: int, indices: ArrayLike) -> NDArray[np.int64]:
        """Return where the windows of the given samples start.

        Which source a sample is drawn from follows from its number (`order.interleave`), and which
        window of the source from the seed and how many samples of that source came before
        (`order.sample_windows`).

        Args:
            block_size: T.
            seed: fixes the order of each source.
            indices: global sample numbers, from 0; any shape.

        Returns:
            Starts in the joined tokens, the shape of `indices`.

        Raises:
            UserError: if a source is too short for one window.
        """
        source, number = interleave(self.shares, indices)
        starts = np.empty(source.shape, dtype=np.int64)
        for k, part in enumerate(self.parts):
            drawn = source == k
            starts[drawn] = self.first[k] + part.windows(block_size, seed, number[drawn])
        return starts

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the files, which pickle as their paths."""
        return type(self), (dict(zip(self.weights, self.parts, strict=True)), self.weights)


def _marks_of(part: TokenFile) -> Any:
    """Return a file's marks; where all is learned, such that take no memory."""
    if part.marks is not None:
        return part.marks
    return np.broadcast_to(np.array(LEARNED, dtype=dtype_for(LEARNED)), len(part))


def common_tokenizer(
    config: DataConfig, corpora: Sequence[Corpus], cache: Path, progress: bool
) -> Tokenizer:
    """Learn one tokenizer from several sources, or open what was learned from them before."""
    made = "char" if config.tokenizer == "char" else f"bpe {config.vocab_size}"
    text = digest(*(corpus.fingerprint for corpus in corpora))
    splits = ["fixed" if c.fixed_split else f"bytes {config.val_fraction!r}" for c in corpora]
    key = digest("tokenizer", str(FORMAT), made, text, *splits)
    folder = cache / f"tokenizer-{key[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    with alone(folder.with_name(f".{folder.name}.lock"), folder):
        if folder.exists():
            try:
                return load_tokenizer(folder)
            except UserError as error:
                _log.warning("%s; making it anew", error)
        tokenizer, _ = learn_tokenizer(config, corpora, progress)
        with atomic_folder(folder) as temporary:
            tokenizer.save(temporary)
        return tokenizer
