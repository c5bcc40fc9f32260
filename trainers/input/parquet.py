"""Columns of parquet, taken for what they must be or refused: one way for all that reads them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from trainers.errors import UserError

Kind = Callable[[pa.ChunkedArray], pa.ChunkedArray]
"""From a column as it lies in a file to one of the type it must have; raises :class:`Misfit`."""


class Misfit(Exception):
    """A column is not of the kind that is meant; a reader says of which file."""

    def __init__(self, expected: str, got: str, row: int | None = None) -> None:
        """``row`` is the first that does not fit, None if the type of the column does not."""
        super().__init__(f"expected {expected}, got {got}")
        self.expected, self.got, self.row = expected, got, row


def holds_images(kind: pa.DataType) -> bool:
    """Whether a column's type can hold encoded images: bytes, or a struct with ``bytes`` in it."""
    if pa.types.is_struct(kind):
        found = kind.get_field_index("bytes")
        return found >= 0 and holds_images(kind.field(found).type)
    if pa.types.is_dictionary(kind):
        return holds_images(kind.value_type)
    types = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view,
             pa.types.is_fixed_size_binary)  # fmt: skip
    return any(test(kind) for test in types)


def holds_lists_of_images(kind: pa.DataType) -> bool:
    """The same for a column with a list of images in each row."""
    types = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in types) and holds_images(kind.value_type)


@contextmanager
def parquet_errors(place: object) -> Iterator[None]:
    """Turn what a reader of parquet raises for damaged files into a UserError about ``place``."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{place}: expected a parquet file or a folder, got {said}") from error


def as_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Strings, be they stored by a dictionary or not, as ``large_string``; none may be null.

    Raises:
        Misfit: If the column holds anything else. Bytes are no text: nobody says which encoding.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if not any(test(kind) for test in is_text):
        raise Misfit("text", str(column.type))
    found = column.cast(pa.large_string())
    if found.null_count:
        raise Misfit("text", "null", int(np.argmax(found.is_null().to_numpy())))
    try:
        found.validate(full=True)
    except pa.ArrowInvalid as error:
        raise Misfit("text in UTF-8", "other bytes", _not_utf8(found)) from error
    return found


def _not_utf8(column: pa.ChunkedArray) -> int:
    """The first row whose bytes are no UTF-8."""
    for row, value in enumerate(column.cast(pa.large_binary()).to_pylist()):
        try:
            value.decode()
        except UnicodeDecodeError:
            return row
    return 0


def as_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Integers, floats and booleans as ``float64``; nulls stay.

    Raises:
        Misfit: If the column holds anything else. Texts are no numbers, whatever they spell.
    """
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal,
             pa.types.is_null)  # fmt: skip
    if not any(test(column.type) for test in kinds):
        raise Misfit("numbers", str(column.type))
    return column.cast(pa.float64(), safe=False)


def as_lists(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists of numbers as lists of ``float64``; nulls, within them or in their place, stay.

    Raises:
        Misfit: If the column holds anything else.
    """
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_null)
    kind = column.type
    if not (any(t(kind) for t in lists) and any(t(kind.value_type) for t in numbers)):
        raise Misfit("lists of numbers", str(kind))
    return pa.chunked_array([pa.array(column.to_pylist(), pa.list_(pa.float64()))])


def as_flags(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Booleans, or numbers that are 0 or 1, as ``bool``; nulls stay.

    Raises:
        Misfit: If the column holds anything else.
    """
    if pa.types.is_boolean(column.type):
        return column
    try:
        numbers = as_numbers(column)
    except Misfit as error:
        raise Misfit("true or false", error.got) from error
    values = numbers.fill_null(0).to_numpy()
    if (others := ~np.isin(values, (0, 1))).any():
        row = int(np.argmax(others))
        raise Misfit("true or false", f"{values[row]:g}", row)
    return numbers.cast(pa.bool_())
