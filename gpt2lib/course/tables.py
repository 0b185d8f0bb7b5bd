"""Rows of values as a table: in a notebook as HTML, elsewhere in columns."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any


class Table:
    """What `table` returns."""

    def __init__(self, cells: list[list[str]]) -> None:
        self.cells = cells

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self.cells, strict=True)]
        rows = [zip(row, widths, strict=True) for row in self.cells]
        return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in row) for row in rows)

    def _repr_html_(self) -> str:
        head, *rows = (
            "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
            for tag, row in zip(["th"] + ["td"] * len(self.cells), self.cells, strict=False)
        )
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    """Return rows as a table.

    Args:
        rows: mappings from the name of a column to a value; numbers, and text that is a number,
            are shown with five digits.
        columns: which columns, in which order.
    """
    return Table([list(columns), *([_cell(row[name]) for name in columns] for row in rows)])


def _cell(value: Any) -> str:
    try:
        return f"{float(value):.5g}"
    except (TypeError, ValueError):
        return str(value)
