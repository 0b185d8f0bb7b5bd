"""The library's own source, shown in a notebook with a link to its lines.

What is shown is kept in the output's metadata too, so that a check can tell whether a committed
notebook still shows what the library says.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gpt2lib.course.screen import show
from gpt2lib.utils.errors import UserError, nearest

PACKAGE = Path(__file__).parents[1]
JUMP = re.compile(r"#L(\d+)-L\d+\)")


@dataclass(frozen=True)
class Shown:
    """One listing: the code and where it stands.

    Attributes:
        path: "module:qualified.name" of the object.
        code: its source, dedented.
        link: a Markdown link from a notebook to the lines, as GitHub and editors follow it.
        sha256: of `code`, so that a stale listing is found.
    """

    path: str
    code: str
    link: str
    sha256: str

    @property
    def markdown(self) -> str:
        """The listing as a committed notebook shows it."""
        return f"{self.link}\n\n```python\n{self.code}```"

    @property
    def live(self) -> str:
        """The listing as a running notebook shows it; JupyterLab's links count lines from 0."""
        if "JPY_SESSION_NAME" not in os.environ:  # Jupyter's server sets it, `make render` does not
            return self.markdown
        return JUMP.sub(lambda found: f"#line={int(found[1]) - 1})", self.markdown, count=1)


def show_source(obj: Any, *others: Any, only: Sequence[str] = (), docstrings: bool = True) -> None:
    """Show the source of a function, class, method or module of the library.

    Args:
        obj: the object; `others` are shown after it.
        only: of a class, only these methods (and the class line).
        docstrings: whether docstrings are shown too.

    Raises:
        UserError: if `only` names a method that the class does not have.
    """
    for each in (obj, *others):
        shown = listing_of(each, only=only, docstrings=docstrings)
        record = {
            "source": shown.path,
            "only": list(only),
            "docstrings": docstrings,
            "sha256": shown.sha256,
        }
        show(shown.code, metadata={"gpt2lib": record}, markdown=shown.live)


def resolve(path: str) -> Any:
    """Return the object at "module:qualified.name" ("module" alone is the module)."""
    module, _, name = path.partition(":")
    obj: Any = importlib.import_module(module)
    for part in filter(None, name.split(".")):
        obj = getattr(obj, part)
    return obj


def listing_of(obj: Any, *, only: Sequence[str] = (), docstrings: bool = True) -> Shown:
    """Return what `show_source` shows of `obj`."""
    obj = inspect.unwrap(obj) if callable(obj) else obj
    if isinstance(obj, ModuleType):
        path, first = obj.__name__, 1
        code = inspect.getsource(obj)
        last = code.count("\n")
    else:
        path = f"{obj.__module__}:{obj.__qualname__}"
        lines, first = inspect.getsourcelines(obj)
        code, last = textwrap.dedent("".join(lines)), first + len(lines) - 1
    if only:
        code = _only(code, obj, only)
    if not docstrings:
        code = _without_docstrings(code)
    code = code.rstrip() + "\n"
    file = Path(inspect.getfile(obj)).resolve()
    try:
        name = "gpt2lib/" + file.relative_to(PACKAGE.resolve()).as_posix()
        link = f"[`{name}`, lines {first} to {last}](../{name}#L{first}-L{last})"
    except ValueError:  # not the library's: there is no file to link to from the notebook
        link = f"`{path}`"
    return Shown(path, code, link, hashlib.sha256(code.encode()).hexdigest())


def _only(code: str, obj: Any, names: Sequence[str]) -> str:
    """Keep the head of a class and the methods in `names`, in the order of the source."""
    tree = ast.parse(code).body[0]
    methods = {n.name: n for n in getattr(tree, "body", []) if isinstance(n, ast.FunctionDef)}
    for name in names:
        if name not in methods:
            raise UserError(f"{obj.__qualname__} has no method {name!r}{nearest(name, methods)}")
    lines = code.splitlines(keepends=True)
    inside = getattr(tree, "body", [])[0]  # the head may have decorators, and bases over lines
    first = min([inside.lineno, *(d.lineno for d in getattr(inside, "decorator_list", []))])
    kept = "".join(lines[: first - 1])
    for name, node in methods.items():
        if name in names:
            start = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
            kept += "    # ...\n" + "".join(lines[start : node.end_lineno])
    return kept


def _without_docstrings(code: str) -> str:
    """Drop the lines of all docstrings; everything else, comments too, stays as it stands."""
    lines = code.splitlines(keepends=True)
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            head = node.body[0] if node.body else None
            text = getattr(getattr(head, "value", None), "value", None)
            if isinstance(head, ast.Expr) and isinstance(text, str) and len(node.body) > 1:
                for i in range(head.lineno - 1, head.end_lineno or head.lineno):
                    lines[i] = ""
    return "".join(lines)
