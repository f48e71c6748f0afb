"""Write Markdown tables of rows, by the columns that a study or a benchmark brings."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
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
    every = [_line(head), "|" + "---|" * len(head), *map(_line, lines)]
    return "\n".join([*every, "", below, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


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


def intervals(name: str, write: Callable[[float], str]) -> Cell:
    """Write the measure `name` with its interval over items and, where there is one, that over runs; nothing where the row lacks it."""
    over_items, over_runs = interval(name, write), f"{name}_run"

    def written(row: Row) -> str:
        ends = f" [{write(row[f'{over_runs}_low'])}, {write(row[f'{over_runs}_high'])}]" if f"{over_runs}_low" in row else ""
        return over_items(row) + ends

    return written


def mean_over_runs(name: str, write: Callable[[float], str]) -> Cell:
    """Write the mean over seeds of a difference and, with two or more, their interval over runs; nothing where the row lacks it."""

    def written(row: Row) -> str:
        values = row.get(f"{name}_each_seed", ())
        return f"{write(fmean(values))}{_run_ends(row, name, write)}" if values else ""

    return written


def each_over_runs(name: str, write: Callable[[float], str]) -> Cell:
    """Write the value of every seed of a difference and, with two or more, their interval over runs."""
    values = each(f"{name}_each_seed", write)

    return lambda row: values(row) + _run_ends(row, name, write)


def _run_ends(row: Row, name: str, write: Callable[[float], str]) -> str:
    low, high = (row.get(f"{name}_run_{end}") for end in ("low", "high"))
    return "" if low is None or high is None else f" [{write(low)}, {write(high)}]"


def p_value(p: float) -> str:
    """Write a p-value; how far it is below 1e-6 says nothing, since no test's assumptions are as exact as that.

    >>> p_value(0.0213), p_value(2e-144)
    ('p = 0.02', 'p < 1e-6')
    """
    return "p < 1e-6" if p < 1e-6 else f"p = {p:.1g}"


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


def arm_column(rows: Sequence[Row]) -> Column:
    """Return the column of arms' names, with the number of seeds of those that have fewer than others."""
    most = max(row["seeds"] for row in rows)
    return Column("arm", lambda row: name_of(row) + (f" ({seeds_of([row])})" if row["seeds"] < most else ""))
