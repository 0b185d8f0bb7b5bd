"""Templates: from the fields of a row to a text, of which only the answers are learned.

A template is a text with the names of fields in braces. What stands in double brackets is learned;
everything else is read, but nothing of it is a target of the loss:

    Question: {question}
    Answer:
    [[{answer}]]

The parts on both sides of a bracket are encoded by themselves. So no token is half a question and
half an answer, the targets are exact to the token, and at generation a prompt that ends where the
answer begins has the very ids that it had in training. White space belongs to the side on which it
stands: with GPT-2's tokenizer an answer on a line of its own is cut as in any text. The end-of-text
token after an answer is learned too: it is how a model knows where to stop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gpt2lib.data.sources.corpus import Context
from gpt2lib.utils.errors import UserError, nearest

Row = Mapping[str, Any]
AUTO = "auto"
OPEN, CLOSE = "[[", "]]"
_FIELD = re.compile(r"\{(\w+)\}")
_ALPACA = (
    "Below is an instruction that describes a task{}. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\n{{instruction}}{}\n\n### Response:\n[[{{output}}]]"
)
ALPACA = _ALPACA.format("", "")
ALPACA_INPUT = _ALPACA.format(
    ", paired with an input that provides further context", "\n\n### Input:\n{input}"
)
PROMPT = "{prompt}[[{completion}]]"
CHAT = "System:\n{system}\n\nUser:\n{user}\n\nAssistant:\n[[{assistant}\n\n]]User:\n…"
CHATS = ("messages", "conversations", "conversation")
ROLES = {
    **dict.fromkeys(("user", "human"), "User"),
    **dict.fromkeys(("assistant", "gpt", "model"), "Assistant"),
}
"""Who speaks, as chats name them; any other is called by its own name."""


@dataclass(frozen=True)
class Template:
    """How a row becomes a text.

    Attributes:
        text: the template as it is shown, with the answers in double brackets.
        fill: returns the parts of a row's text, of which those that are only read are `Context`;
            none where a field is null or every answer is empty. It is given the row and what to
            call it in messages.
    """

    text: str
    fill: Callable[[Row, str], list[str]]

    def __str__(self) -> str:
        return f"template {self.text}"


def template_for(fields: Mapping[str, str], wanted: str, where: str) -> Template:
    """Return the template for rows with some fields.

    Args:
        fields: what each field holds.
        wanted: `chat`, `alpaca`, `prompt`, `auto` for the first of them whose fields are there, or
            a text with braces and double brackets, in which a backslash and an n is a new line.
        where: what to call the rows in messages.

    Raises:
        UserError: if it marks no answer, or the rows lack a field of it.
    """
    chat = next((name for name in CHATS if name in fields), CHATS[0])
    known: dict[str, tuple[Template, set[str]]] = {
        "chat": (Template(CHAT, lambda row, where: _chat(row, chat, where)), {chat}),
        "alpaca": (Template(ALPACA_INPUT, _alpaca), {"instruction", "output"}),
        "prompt": (_written(PROMPT), {"prompt", "completion"}),
    }
    if wanted == AUTO:
        found = next((one for one, needed in known.values() if needed <= fields.keys()), None)
        if found is None:
            raise UserError(
                f"no template fits {where}, which has the fields {', '.join(fields) or 'none'}; "
                "write one with --data.template, such as 'Q: {question}\\nA:\\n[[{answer}]]'"
            )
        return found
    if wanted in known:
        template, needed = known[wanted]
    elif OPEN not in wanted and "{" not in wanted:
        raise UserError(
            f"there is no template {wanted!r}, only {AUTO}, {', '.join(known)} and what you write, "
            f"such as 'Q: {{question}}\\nA:\\n[[{{answer}}]]'{nearest(wanted, known)}"
        )
    else:
        template = _written(wanted.replace("\\n", "\n"))
        needed = set(_FIELD.findall(wanted))
    if missing := [name for name in sorted(needed) if name not in fields]:
        has = f"{where} has no field {missing[0]!r}, only {', '.join(fields) or 'none'}"
        raise UserError(f"{has}; the template needs it{nearest(missing[0], fields)}")
    return template


def shown(parts: list[str]) -> str:
    """Return a row's text with what is learned in double brackets."""
    return "".join(p if isinstance(p, Context) else f"{OPEN}{p}{CLOSE}" for p in parts)


def _written(text: str) -> Template:
    """Return the template that a text describes."""
    pieces = re.split(r"\[\[|\]\]", text)
    marks = re.findall(r"\[\[|\]\]", text)
    if not marks or marks != [OPEN, CLOSE] * (len(marks) // 2):
        raise UserError(
            f"the template {text!r} marks no answer; put what is to be learned between [[ and ]], "
            "such as 'Q: {question}\\nA:\\n[[{answer}]]'"
        )
    if not any(_FIELD.search(piece) for piece in pieces[1::2]):
        raise UserError(
            f"the template {text!r} has no field between [[ and ]]; write [[{{field}}]]"
        )

    def fill(row: Row, where: str) -> list[str]:
        values = {name: _value(row, name, where) for name in _FIELD.findall(text)}
        learned = [values[n] for piece in pieces[1::2] for n in _FIELD.findall(piece)]
        if None in values.values() or not any(learned):
            return []
        filled = [_FIELD.sub(lambda match: str(values[match[1]]), piece) for piece in pieces]
        return [p if i % 2 else Context(p) for i, p in enumerate(filled) if p]

    return Template(text, fill)


def _alpaca(row: Row, where: str) -> list[str]:
    """Fill in Alpaca's template, of which there is one without an input."""
    return _written(ALPACA_INPUT if row.get("input") else ALPACA).fill(row, where)


def _chat(row: Row, field: str, where: str) -> list[str]:
    """Write down a chat; each answer of the assistant is learned, with the blank line after it."""
    messages = _present(row, field, where)
    if not isinstance(messages, list) or not all(isinstance(m, Mapping) for m in messages):
        raise UserError(f'{where}: {field!r} must be a list such as [{{"role": …, "content": …}}]')
    parts: list[str] = []
    for i, message in enumerate(messages, start=1):
        role, content = (
            message.get(ours, message.get(theirs))
            for ours, theirs in (("role", "from"), ("content", "value"))
        )
        if not isinstance(role, str) or not isinstance(content, str):
            raise UserError(f"{where}: message {i} has no role or no content that is text")
        speaker = ROLES.get(role, role.capitalize())
        between = "\n\n" if i < len(messages) else ""
        if speaker != "Assistant":
            parts.append(Context(f"{speaker}:\n{content}{between}"))
        else:
            parts += [Context(f"{speaker}:\n"), *filter(None, [content + between])]
    if all(isinstance(part, Context) for part in parts):
        raise UserError(f"{where}: no message is the assistant's, so there is nothing to learn")
    return parts


def _present(row: Row, field: str, where: str) -> Any:
    if field not in row:
        has = ", ".join(row) or "none"
        raise UserError(f"{where}: there is no field {field!r}, only {has}; the template needs it")
    return row[field]


def _value(row: Row, field: str, where: str) -> str | None:
    """Return a field as text, None if it is null."""
    value = _present(row, field, where)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        kind = "a list" if isinstance(value, list) else "an object"
        raise UserError(f"{where}: {field!r} holds {kind}, not text")
    return str(value)
