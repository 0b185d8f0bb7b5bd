"""One token for each character of the training text, as in Karpathy's lecture.

Reference: Karpathy, "Let's build GPT: from scratch, in code, spelled out" (2023).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from gpt2lib.tokenizer import files
from gpt2lib.tokenizer.base import Tokenizer, check_not_empty, check_text, digest
from gpt2lib.utils.errors import UserError


class CharTokenizer(Tokenizer):
    """Characters in the order of their code points; an id is a position in that order.

    There is no end-of-text token, and a character that was not in the training text has no id.
    """

    name = "char"
    eot = None

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = sorted(set(characters))
        self.vocab_size = len(self.characters)
        self._bytes = [c.encode("utf-8", "surrogatepass") for c in self.characters]
        self._ids = {character: i for i, character in enumerate(self.characters)}

    @classmethod
    def train(cls, documents: Iterable[str]) -> CharTokenizer:
        """Collect the characters of documents.

        Raises:
            UserError: for documents without text, or a lone surrogate.
        """
        seen: set[str] = set()
        for text in documents:
            seen.update(check_text(text))
        check_not_empty(len(seen))
        return cls(seen)

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Return the ids of a text; there are no special tokens to allow.

        Raises:
            UserError: for a character that was not in the training text.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            check_text(text)
        at, unknown = next((i, c) for i, c in enumerate(text) if c not in self._ids)
        raise UserError(
            f"character {unknown!r} (U+{ord(unknown):04X}) at position {at} is not one of this "
            f"tokenizer's {self.vocab_size} characters; leave it out, or use a bpe tokenizer"
        )

    @cached_property
    def fingerprint(self) -> str:
        """Return the sha256 of the characters."""
        return digest(["char", self.characters])

    def save(self, folder: Path | str, model_max_length: int | None = None) -> None:
        """Write chars.json, which holds the characters in order."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(folder / "chars.json", {"characters": self.characters})

    @classmethod
    def load(cls, folder: Path | str) -> CharTokenizer:
        """Read chars.json.

        Raises:
            UserError: if it is missing or garbled.
        """
        path = Path(folder) / "chars.json"
        characters = files.read_json(path).get("characters")
        if not isinstance(characters, list) or not characters:
            raise UserError(f"{path} is garbled: it holds no list of characters")
        if not all(isinstance(c, str) and len(c) == 1 for c in characters):
            raise UserError(f"{path} is garbled: some of its characters are not one character")
        if characters != sorted(set(characters)):
            raise UserError(f"{path} is garbled: its characters are not in order, or one is twice")
        return cls(characters)
