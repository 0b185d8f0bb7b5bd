"""`gpt2lib generate`: the text appears as it is drawn."""

from __future__ import annotations

import codecs
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from gpt2lib.cli.trained import Trained, load_model, run_of, text_of_run
from gpt2lib.utils.errors import UserError, visible


@dataclass(frozen=True, kw_only=True)
class Generate(Trained):
    """Continue a text, token by token.

    Attributes:
        prompt: what to continue.
        max_new_tokens: how many tokens to draw.
        temperature: below 1 sharpens, above 1 flattens, 0 takes only the likeliest token.
        top_k: keep the k likeliest tokens.
        top_p: keep the smallest set of likeliest tokens whose probabilities reach p.
        repetition_penalty: above 1 makes tokens that occurred less likely; 1 does nothing.
        past_block: when the context is full: go on from its last half, or refuse at the start.
        seed: makes the text repeatable; else it differs each time.
        stop: end before this text; may be given several times.
        show_copied: mark what of the new text stands, byte for byte, in the text that the run was
            trained on; it is shown when it is complete.
        copied_bytes: length from which on a stretch counts as copied.
    """

    usage = "RUN --prompt TEXT [options]"
    arguments = ("run",)

    prompt: str
    max_new_tokens: int = 200
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    past_block: Literal["reread", "refuse"] = "reread"
    seed: int | None = None
    stop: tuple[str, ...] = ()
    show_copied: bool = False
    copied_bytes: int = 50

    def __post_init__(self) -> None:
        self.check_at_least_one("max_new_tokens")
        self.check_at_least_one("copied_bytes")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise UserError(f"--seed must be from 0 to 2**63 - 1, not {self.seed}")


def generate(argv: list[str]) -> int:
    """Run `gpt2lib generate RUN --prompt TEXT`."""
    options, _ = Generate.read(argv)
    search = _search(options) if options.show_copied else None
    text = _continuation(options)
    if sys.stdout.isatty():  # a file or a pipe gets what the model wrote
        text = map(visible, text)
    if search is not None:
        print(options.prompt + search("".join(text)))
        return 0
    first = next(text, "")  # so that whatever is wrong is said before anything is printed
    print(options.prompt + first, end="", flush=True)
    for piece in text:
        print(piece, end="", flush=True)
    print()
    return 0


def _search(options: Generate) -> Callable[[str], str]:
    """Open the text of the run; return what marks in new text what is copied, and says how much.

    With it stands what the held-out text has in common with the text trained on: no one copied it.
    """
    from gpt2lib.generation.copied import find_copied, text_of
    from gpt2lib.hub import load_tokenizer_for, resolve

    folder = resolve(options.run)
    run, tokenizer = run_of(folder), load_tokenizer_for(folder)
    if run is None:
        raise UserError(
            f"--show_copied looks into the text of a run, and {options.run} does not say what it "
            "was trained on"
        )
    prepared = text_of_run(run, folder, tokenizer)

    def marked(text: str) -> str:
        held_out = b"" if prepared.val is None else next(text_of(prepared.val, tokenizer, 1 << 12))
        samples = [text.encode(), held_out]
        train = text_of(prepared.train, tokenizer)
        new, val = find_copied(samples, train, options.copied_bytes)
        colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        shown = new.painted("\x1b[30;43m", "\x1b[0m") if colours else new.painted()
        scale = f" (of held-out text {val.share:.1%})" if held_out else ""
        return f"{shown}\n\n{new.about()}{scale}"

    return marked


def _continuation(options: Generate) -> Iterator[str]:
    """Load the model and yield what it writes after the prompt, in pieces."""
    import torch

    from gpt2lib.generation.generator import stream
    from gpt2lib.hub import load_tokenizer_for, resolve

    folder = resolve(options.run)
    tokenizer = load_tokenizer_for(folder)
    ids = tokenizer.encode(options.prompt)
    if not ids:
        if tokenizer.eot is None:
            raise UserError("--prompt is empty; give at least one character")
        ids = [tokenizer.eot]
    model, _ = load_model(options, folder, many_rows=False)
    random_seed = random.SystemRandom().getrandbits(32)
    tokens = stream(
        model,
        torch.tensor([ids], device=next(model.parameters()).device),  # (1, T)
        options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        repetition_penalty=options.repetition_penalty,
        past_block=options.past_block,
        seed=random_seed if options.seed is None else options.seed,
        stop=() if tokenizer.eot is None else (tokenizer.eot,),
    )
    drawn = (tokenizer.token_bytes(token) for token in tokens if token != tokenizer.eot)
    return text_pieces(drawn, options.stop)


def text_pieces(pieces: Iterable[bytes], stop: Iterable[str] = ()) -> Iterator[str]:
    """Decode bytes as they come, and end before the first of the stop texts.

    A token may end in the middle of a UTF-8 character, and a stop text may be spread over
    several tokens: both are held back until they are complete or ruled out.

    Args:
        pieces: the bytes of one token after the other.
        stop: texts that end the stream; they are not part of it.

    Yields:
        Text that is certain; what is not UTF-8 becomes U+FFFD.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    stops = [text for text in stop if text]
    held = ""
    for piece in pieces:
        held += decoder.decode(piece)
        found = [at for text in stops if (at := held.find(text)) >= 0]
        if found:
            yield held[: min(found)]
            return
        keep = max((_overlap(held, text) for text in stops), default=0)
        certain = len(held) - keep
        if certain:
            yield held[:certain]
            held = held[certain:]
    held += decoder.decode(b"", final=True)
    if held:
        yield held


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
