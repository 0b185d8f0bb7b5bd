"""Parquet, Arrow and Feather files through pyarrow: read, not mapped, a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gpt2lib.data.sources.bounds import bounded
from gpt2lib.data.sources.columns import TEXT, mark_twins
from gpt2lib.data.sources.corpus import first_line
from gpt2lib.data.sources.files import clear_errors, kind_of, seekable
from gpt2lib.utils.errors import UserError

ROWS = 256  # decoded at once
_ARROW_FILE = b"ARROW1"
_FEATHER_1 = b"FEA1"


def kinds(path: Path, _encoding: str = "", _errors: str = "") -> dict[str, str]:
    """Return what each column holds; see `columns`."""
    with _opened(path) as (schema, _):
        return mark_twins(schema.names, {field.name: _kind(field.type) for field in schema})


def texts(path: Path, column: str, _encoding: str = "", _errors: str = "") -> Iterator[str | None]:
    """Iterate over one column; of Parquet no other is read."""
    with _opened(path) as (_, read):
        batches = (_sound(path, batch.column(column)) for batch in read([column]))
        values = (value.as_py() for batch in batches for value in batch)
        yield from bounded(path, values, lambda text: len(text or ""))


def rows(
    path: Path, _encoding: str = "", _errors: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Iterate over the rows, each with what to call it in messages."""
    with _opened(path) as (schema, read):
        batches = (_sound(path, batch) for batch in read(schema.names))
        every = (row for batch in batches for row in batch.to_pylist())
        entries = bounded(path, every, _size)
        for number, row in enumerate(entries, start=1):
            yield f"{path}, row {number}", row


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Callable[[list[str]], Iterator[Any]]]]:
    """Open a file of any of these kinds: its schema, and what reads some columns at least."""
    with clear_errors(path, pa.ArrowException), seekable(path) as file:
        if kind_of(path) == ".parquet":
            with pq.ParquetFile(file, buffer_size=1 << 20) as table:
                yield table.schema_arrow, partial(table.iter_batches, ROWS, None, use_threads=False)
            return
        magic = file.read(len(_ARROW_FILE))
        file.seek(0)
        if magic.startswith(_FEATHER_1):
            raise UserError(f"{path} is of Feather's first version; write it again as version 2")
        if magic == _ARROW_FILE:
            whole = pa.ipc.open_file(file)
            batches = (whole.get_batch(i) for i in range(whole.num_record_batches))
            yield whole.schema, lambda _: batches
        else:  # a stream, as `datasets` writes it
            stream = pa.ipc.open_stream(file)
            yield stream.schema, lambda _: iter(stream)


def _size(row: dict[str, Any]) -> int:
    return sum(len(value) for value in row.values() if isinstance(value, str | list | dict))


def _sound(path: Path, values: Any) -> Any:
    """Return a column or a batch whose values lie within it: pyarrow reads what is there unseen.

    A damaged file would otherwise be read from anywhere in the memory, or end the process.

    Raises:
        UserError: for text that is not UTF-8.
        pyarrow.ArrowInvalid: for other damage.
    """
    try:
        values.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise UserError(f"{path} holds text that is not UTF-8: {first_line(error)}") from error
        raise
    return values


def _kind(kind: Any) -> str:
    of = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = pa.types.is_string(of) or pa.types.is_large_string(of) or pa.types.is_string_view(of)
    return TEXT if is_text else str(kind)
