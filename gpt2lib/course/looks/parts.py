"""Lists, texts and dicts: what is missing, what is too much, what stands in another order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gpt2lib.course.looks.base import FEW, Look
from gpt2lib.course.readable import brief

Same = Callable[[Any, Any], bool]

LONGEST = 400
"""Elements up to which any two are held against each other."""


def sequences(right: Any, got: Any, same: Same) -> Iterator[Look]:
    """Yield what fits two lists, tuples, texts or byte strings of one kind."""
    unit = "element"
    if isinstance(right, str | bytes):
        unit = "character" if isinstance(right, str) else "byte"
        yield from _texts(right, got)
    if not len(right) or not len(got):
        if not len(got):
            yield Look("empty", "it is empty")
        return
    if max(len(right), len(got)) > LONGEST:
        return
    if len(right) > 1 and all_same(got, right[::-1], same):
        text = (
            "the two parts are right, but exchanged" if len(right) == 2 else "right, but reversed"
        )
        yield Look("reversed", text)
    yield from _ends(right, got, same, unit)
    missing, extra = _without(right, got, same), _without(got, right, same)
    if not missing and not extra:
        yield Look("order", f"it has the right {unit}s, in another order")
    elif len(right) == len(got):
        yield from _replaced(right, got, same, unit)
    elif len(missing) <= len(right) // 2 and len(extra) <= len(right):
        yield Look("elements", f"the {unit}s are right {_but(missing, extra)}")


def dicts(right: dict[Any, Any], got: dict[Any, Any], same: Same) -> Iterator[Look]:
    """Yield what fits two dicts."""
    if not right:
        return
    if not got:
        yield Look("empty", "it is empty")
        return
    missing = [k for k in right if k not in got]
    extra = [k for k in got if k not in right]
    wrong = [k for k in right if k in got and not same(right[k], got[k])]
    shared = len(right) - len(missing)
    if (missing or extra) and not wrong and shared:
        yield Look("keys", f"the values are right {_but(missing, extra, 'key ')}")
    elif missing or extra:
        turned = {tuple(reversed(k)): v for k, v in got.items() if isinstance(k, tuple)}
        if turned.keys() == right.keys() and all(same(right[k], turned[k]) for k in right):
            yield Look("keys-reversed", "the values are right, under keys that are reversed")
    elif len(right) > 1 and not _without([*right.values()], [*got.values()], same):
        yield Look("order", "the right values stand under other keys")
    elif len(right) > 2 and len(wrong) <= len(right) // 2:
        yield Look(
            "all-but",
            f"it is right in all but {len(wrong)} of {len(right)} keys: at {_some(wrong)}",
        )


def all_same(one: Sequence[Any], other: Sequence[Any], same: Same) -> bool:
    """Return whether two sequences agree, element by element."""
    return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))


def _texts(right: Any, got: Any) -> Iterator[Look]:
    if got.lower() == right.lower():
        yield Look("case", "it is right but for capital and small letters")
    elif got.strip() == right.strip():
        yield Look("blanks", "it is right but for blanks or line ends around it")
    elif right and len(got) > len(right) and right in got:
        yield Look("inside", "the right text stands inside it, with more around it")


def _ends(right: Any, got: Any, same: Same, unit: str) -> Iterator[Look]:
    """Something missing or too much at one end, or all of it moved by one."""
    n = min(len(right), len(got))
    more = abs(len(right) - len(got))
    if more:
        what = f"{more} {unit}{'s' if more > 1 else ''}"
        word = "missing" if len(got) < len(right) else "too many"
        for end, part in (("end", slice(0, n)), ("start", slice(-n, None))):
            if all_same(right[part], got[part], same):
                yield Look("length", f"it is right but for {what} {word} at the {end}")
                return
    elif n > 2:
        if all_same(got[1:], right[:-1], same):
            yield Look("shifted", f"the right {unit}s stand 1 position too late")
        elif all_same(got[:-1], right[1:], same):
            yield Look("shifted", f"the right {unit}s stand 1 position too early")


def _replaced(right: Any, got: Any, same: Same, unit: str) -> Iterator[Look]:
    wrong = [i for i in range(len(right)) if not same(right[i : i + 1], got[i : i + 1])]
    if len(right) > 2 and 0 < len(wrong) <= len(right) // 2:
        where = ", ".join(map(str, wrong[:FEW])) + (" and more" if len(wrong) > FEW else "")
        text = f"it is right in all but {len(wrong)} of {len(right)} {unit}s: at {where}"
        yield Look("all-but", text)


def _without(some: Sequence[Any], taken: Sequence[Any], same: Same) -> list[Any]:
    """Return the elements of `some` that `taken` does not have, or not so often."""
    left, gone = list(taken), []
    for element in some:
        at = next((i for i, other in enumerate(left) if same(element, other)), None)
        if at is None:
            gone.append(element)
        else:
            del left[at]
    return gone


def _but(missing: Sequence[Any], extra: Sequence[Any], what: str = "") -> str:
    said = []
    if missing:
        said.append(f"{what}{_some(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    if extra:
        said.append(f"{what}{_some(extra)} should not be there")
    return f"but {' and '.join(said)}"


def _some(values: Sequence[Any]) -> str:
    shown = ", ".join(brief(v, 60) for v in values[:FEW])
    return shown + (f" and {len(values) - FEW} more" if len(values) > FEW else "")
