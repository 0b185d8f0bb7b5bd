"""What a file is that cannot be read as text, told from its bytes."""

from __future__ import annotations

ONE_BYTE = frozenset({"cp1250", "cp1252", "cp1254", "cp1257", "latin_1", "cp850", "cp858", "cp437"})
"""Encodings of one byte a character that a detector cannot tell apart on Western text."""
FEW = 0.15
"""Share of bytes beyond ASCII below which the text is Western, or too little to tell."""
KNOWN = {
    b"\x1f\x8b": "it is compressed by gzip: name it .gz",
    b"\x28\xb5\x2f\xfd": "it is compressed by zstd: name it .zst",
    b"PK\x03\x04": "it is a binary file, a zip archive: unpack it",
    b"PAR1": "it is a Parquet file: name it .parquet",
    b"%PDF": "it is a PDF file: give its text",
}
ERRORS = "--data.encoding_errors replace puts U+FFFD in its place, skip leaves it out"


def way_out(head: bytes, near: bytes, at: int, encoding: str, name: str) -> str:
    """Return what to do about a file in which a byte is no text.

    Args:
        head: the first bytes of the file.
        near: bytes around the bad one.
        at: where in `near` the bad one is.
        encoding: in which the file was read.
        name: the file's, by which it can be told from others.
    """
    what = next((said for magic, said in KNOWN.items() if head.startswith(magic)), None)
    if what is not None or head[257:262] == b"ustar":
        return what or "it is a tar archive: unpack it"
    if wide := _wide(head):
        return wide
    if b"\0" in head:
        return "it looks like a binary file; give a text file"
    good, bad = _count(near, encoding)
    if bad * 20 <= good:
        more = f", but for {bad - 1} more nearby" if bad > 1 else ""
        return f"the rest is {encoding}{more}, so the byte is damaged: mend it, or {ERRORS}"
    likely, *others = _likely(near)
    here = bytes(near[max(0, at - 12) : at + 12]).decode(likely, "replace")
    said = f"it would read {' '.join(here.split())!r} as {likely}: --data.encoding {likely}"
    others = [ERRORS] if bad == 1 else [f"try {' or '.join(others)}"] * bool(others)
    said += "".join(f"; if that is wrong, {other}" for other in others)
    return f"{said}; for this one of several files, --data.encoding '{{{name}: {likely}}}'"


def _wide(head: bytes) -> str:
    """Recognise UTF-16 and UTF-32 by their mark, or by where their zeros are."""
    if head[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "it begins like UTF-32: try --data.encoding utf-32"
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "it begins like UTF-16: try --data.encoding utf-16"
    places = [head[i::4].count(0) * 4 > len(head) * 0.7 for i in range(4)]
    rare = [head[i::4].count(0) * 4 < len(head) * 0.1 for i in range(4)]
    for name, zeros in (
        ("utf-32-le", (1, 2, 3)),
        ("utf-32-be", (0, 1, 2)),
        ("utf-16-le", (1, 3)),
        ("utf-16-be", (0, 2)),
    ):
        if all(places[i] if i in zeros else rare[i] for i in range(4)):
            return f"its zeros are those of {name}: try --data.encoding {name}"
    return ""


def _count(near: bytes, encoding: str) -> tuple[int, int]:
    """Count characters beyond ASCII that are right in an encoding, and bytes that are not."""
    try:
        text = near.decode(encoding, "replace")
        kept = near.decode(encoding, "ignore")
    except UnicodeError:
        return 0, 2
    ends = near[-4:].decode(encoding, "ignore") == ""  # a character that the sample cuts
    return sum(not c.isascii() for c in kept), max(1, len(text) - len(kept) - ends)


def _likely(near: bytes) -> list[str]:
    """Return the likeliest encodings of bytes that are not UTF-8, the first one first."""
    from charset_normalizer import from_bytes

    western = "cp1252" if any(0x80 <= byte < 0xA0 for byte in near) else "latin-1"
    if sum(byte >= 0x80 for byte in near) < len(near) * FEW:
        return [western]
    found = [str(match.encoding) for match in from_bytes(near)][:3]
    return found if found and found[0] not in ONE_BYTE else [western]
