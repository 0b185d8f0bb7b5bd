"""Parquet and Arrow: tables with types, read a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gpt2lib.data.sources.columns import TEXT, Table, mark_twins
from gpt2lib.data.sources.decoding import seekable
from gpt2lib.utils.errors import UserError

ROWS = 256  # decoded at once
_ARROW_FILE = b"ARROW1"
_FEATHER_1 = b"FEA1"


def parquet_table(path: Path, _encoding: str = "") -> Table:
    """Return a Parquet file; only the column that is asked for is read, a few rows at a time."""

    def kinds() -> Mapping[str, str]:
        with seekable(path) as file:
            return schema_kinds(pq.read_schema(file))

    def texts(column: str) -> Iterator[str | None]:
        with seekable(path) as file, pq.ParquetFile(file, buffer_size=1 << 20) as parquet:
            for batch in parquet.iter_batches(ROWS, columns=[column], use_threads=False):
                yield from _strings(batch.column(0), path)

    return Table(str(path), kinds, texts)


def arrow_table(path: Path, _encoding: str = "") -> Table:
    """Return an Arrow file or stream, as Feather and `datasets` write them.

    It is read, not mapped into memory, a batch of rows at a time.
    """

    def kinds() -> Mapping[str, str]:
        with _batches(path) as (schema, _):
            return schema_kinds(schema)

    def texts(column: str) -> Iterator[str | None]:
        with _batches(path) as (schema, batches):
            at = schema.get_field_index(column)
            for batch in batches:
                yield from _strings(batch.column(at), path)

    return Table(str(path), kinds, texts)


@contextmanager
def _batches(path: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Open either kind of Arrow file: its schema, and its batches of rows."""
    with seekable(path) as file:
        magic = file.read(len(_ARROW_FILE))
        file.seek(0)
        if magic.startswith(_FEATHER_1):
            raise UserError(f"{path} is of Feather's first version; write it again as version 2")
        if magic == _ARROW_FILE:
            reader = pa.ipc.open_file(file)
            yield reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            stream = pa.ipc.open_stream(file)
            yield stream.schema, iter(stream)


def schema_kinds(schema: Any) -> dict[str, str]:
    """Return what the columns of an Arrow schema hold."""
    kinds = {field.name: TEXT if _is_text(field.type) else str(field.type) for field in schema}
    return mark_twins(schema.names, kinds)


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


def _strings(values: Any, path: Path) -> Iterator[str | None]:
    """Turn an Arrow column into strings, one at a time."""
    try:
        for value in values:
            yield value.as_py()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} holds text that is not UTF-8: {error.reason}") from error
