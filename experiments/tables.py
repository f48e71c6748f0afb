"""Write Markdown tables of rows, by the columns that a study or a benchmark brings."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Cell = Callable[[Row], str]


@dataclass(frozen=True)
class Column:
    """A column of a table: its head, and the text of a row's cell."""

    head: str
    cell: Cell
    needs: str = ""
    """The measure that some row must have for the column to be shown; empty: it is always shown."""


def table(rows: Sequence[Row], columns: Sequence[Column], below: str) -> str:
    """Write one line a row, then a paragraph `below`."""
    shown = [column for column in columns if not column.needs or any(column.needs in row for row in rows)]
    return markdown([column.head for column in shown], [[column.cell(row) for column in shown] for row in rows], below)


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]], below: str) -> str:
    """Write a table of finished cells, then a paragraph `below`."""
    every = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(line) + " |" for line in lines)]
    return "\n".join([*every, "", below, ""])


# ---------------------------------------------------------------------- cells


def name_of(row: Row) -> str:
    """Return the row's id in words."""
    return str(row["id"]).replace("_", " ")


def value(name: str, write: Callable[[Any], str] = str) -> Cell:
    """Write the measure `name`; nothing where the row lacks it."""
    return lambda row: "" if row.get(name) is None else write(row[name])


def each(name: str, write: Callable[[Any], str]) -> Cell:
    """Write every value of the measure `name`, such as one a seed."""
    return lambda row: ", ".join(map(write, row.get(name, ())))


def interval(name: str, write: Callable[[float], str]) -> Cell:
    """Write the measure `name` with its interval; nothing where the row lacks it."""
    return lambda row: f"{write(row[name])} [{write(row[f'{name}_low'])}, {write(row[f'{name}_high'])}]" if name in row else ""


def percent(share: float) -> str:
    """Write a share as a percentage.

    >>> percent(0.256)
    '25.6 %'
    """
    return f"{100 * share:.1f} %"


def points(share: float) -> str:
    """Write a difference of shares in percentage points.

    >>> points(0.016)
    '+1.6'
    """
    return f"{100 * share:+.1f}"


def seeds_of(rows: Sequence[Row]) -> str:
    """Say how many seeds the rows have at most."""
    number = max(row["seeds"] for row in rows)
    return f"{number} seed{'s' if number > 1 else ''}"
