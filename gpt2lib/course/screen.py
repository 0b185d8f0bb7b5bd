"""Where the course's output goes: rich in a notebook, plain text in a terminal."""

from __future__ import annotations

import sys
from typing import Any


def shell() -> Any:
    """Return the running IPython shell, or None outside of one."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def cell_number() -> int | None:
    """Return the number of the notebook cell now running, or None outside a notebook."""
    running = shell()
    return None if running is None else int(running.execution_count)


def show(text: str, metadata: dict[str, Any] | None = None, **rich: Any) -> None:
    """Display `text`, with richer forms of it where a notebook can show them.

    Args:
        text: the plain form.
        metadata: kept with the output in the notebook, never shown.
        rich: other forms by short name: html, markdown, png (bytes).
    """
    if shell() is None:
        encoding = (
            getattr(sys.stdout, "encoding", None) or "utf-8"
        )  # a Windows console may be cp1252
        print(text.encode(encoding, "replace").decode(encoding))
        return
    from IPython.display import display

    kinds = {"html": "text/html", "markdown": "text/markdown", "png": "image/png"}
    bundle = {"text/plain": text, **{kinds[k]: v for k, v in rich.items() if v is not None}}
    display(bundle, raw=True, metadata=metadata or {})
