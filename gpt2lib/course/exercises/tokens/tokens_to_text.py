"""Notebook 01: From tokens back to text."""

from __future__ import annotations

from types import SimpleNamespace

from gpt2lib.course.exercise import Exercise, Misconception, case

TURTLE = "🐢".encode()


EXERCISE = Exercise(
    id="tokens-to-text",
    notebook="01",
    title="From tokens back to text",
    signature="my_decode(ids, token_bytes)",
    reference="gpt2lib.tokenizer.base:Tokenizer.decode",
    adapt=lambda decode: (
        lambda ids, token_bytes: decode(
            SimpleNamespace(_bytes=token_bytes, vocab_size=len(token_bytes)), ids
        )
    ),
    cases=lambda: [
        case(ids, [b"a", TURTLE[:2], TURTLE[2:], "é".encode(), b"\xff", b" "])
        for ids in ([0, 5, 3], [1, 2], [1], [0, 4, 0], [])
    ],
    hints=[
        "A character may be spread over several tokens: join first, decode afterwards.",
        'b"".join(...) joins bytes.',
        'bytes.decode("utf-8", errors="replace") writes U+FFFD for bytes of no character.',
    ],
    misconceptions=[
        Misconception(
            "token-by-token",
            "each token is decoded alone, so a character spread over two tokens is lost: join "
            "the bytes first",
            wrong=lambda ids, token_bytes: "".join(
                token_bytes[i].decode("utf-8", errors="replace") for i in ids
            ),
        ),
        Misconception(
            "bytes-dropped",
            "bytes that are no character vanish; errors='replace' keeps a sign of them",
            wrong=lambda ids, token_bytes: b"".join(token_bytes[i] for i in ids).decode(
                "utf-8", errors="ignore"
            ),
        ),
        Misconception(
            "byte-as-character",
            "each byte becomes a character of its own (Latin-1): é is two bytes in UTF-8",
            wrong=lambda ids, token_bytes: b"".join(token_bytes[i] for i in ids).decode("latin-1"),
        ),
        Misconception(
            "spaces-between",
            "you put spaces between the tokens; they carry their own spaces",
            wrong=lambda ids, token_bytes: b" ".join(token_bytes[i] for i in ids).decode(
                "utf-8", errors="replace"
            ),
        ),
        Misconception(
            "still-bytes",
            "this is bytes, not text: decode them as UTF-8",
            wrong=lambda ids, token_bytes: b"".join(token_bytes[i] for i in ids),
        ),
    ],
)
