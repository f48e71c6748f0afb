"""What calls from Python return: the rows that the commands write as JSON, with attributes and tables for a prompt or a notebook."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

Cells = Sequence[Sequence[str]]


class Fields(dict[str, Any]):
    """A dictionary whose entries are attributes too: `row.accuracy` is `row["accuracy"]`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no {name!r}: it has {', '.join(map(str, self))}") from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *map(str, self)})


class Shown:
    """Shown as a table: in a prompt as text, in a notebook as HTML."""

    def table(self) -> Cells:
        """Return the rows to show, headed by their columns."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return as_text(self.table())

    def _repr_html_(self) -> str:
        return as_html(self.table())


class Result(Shown, Fields):
    """The measurements of `evaluate`."""

    @property
    def rows(self) -> list[Fields]:
        """The measurement of each model on each suite."""
        return [Fields(row) for row in self.get("evaluation", ())]

    @property
    def accuracy(self) -> float:
        """The accuracy of the last model on the first suite."""
        return float(self._of_first_suite()[-1]["accuracy"])

    def _of_first_suite(self) -> list[Fields]:
        return [row for row in self.rows if row.get("suite") == self.rows[0].get("suite")]

    def table(self) -> Cells:
        return measured_table(self.rows)


class RunResult(Result):
    """The result of `practice` or `adapt`, with the places of what the run wrote."""

    def __init__(self, found: Mapping[str, Any], folder: Path) -> None:
        super().__init__(found)
        self.folder = folder
        """The run folder."""

    @property
    def model(self) -> str:
        """The trained model: a Hugging Face folder, which `etude.generate`, transformers and vLLM load."""
        return str(self.folder / "model")

    @property
    def report(self) -> Path:
        """The page to open in a browser."""
        return self.folder / "report.html"

    @property
    def before(self) -> Fields:
        """The measurement of the model as it came, on the first suite."""
        return self.rows[0]

    @property
    def after(self) -> Fields:
        """The measurement of the trained model, on the first suite."""
        return self._of_first_suite()[-1]

    @property
    def gain(self) -> float:
        """What training added to the accuracy on the first suite."""
        return float(self.after["accuracy"] - self.before["accuracy"])

    def table(self) -> Cells:
        return super().table() if self.rows else [["run"], [str(self.folder)]]

    def __repr__(self) -> str:
        return f"{super().__repr__()}\nmodel: {self.model}   report: {self.report}"

    def _repr_html_(self) -> str:
        return f"{super()._repr_html_()}<p>model: {escape(self.model)}<br>report: {escape(str(self.report))}</p>"


class Answer(Shown, Fields):
    """The answers to one prompt, as `etude generate --json` writes them."""

    @property
    def text(self) -> str:
        """The first answer; "" if a method of decoding gave none."""
        return next(iter(self["completions"]), "")

    def table(self) -> Cells:
        return [["prompt", "answer"], *([self["prompt"], text] for text in self["completions"])]

    def __str__(self) -> str:
        return self.text


class Answers(Shown, list[Answer]):
    """The answers to several prompts, in order."""

    def table(self) -> Cells:
        return [["prompt", "answer"], *(row for answer in self for row in answer.table()[1:])]


def measured_table(rows: Sequence[Mapping[str, Any]]) -> Cells:
    """Return the measurements of models on suites, headed by their columns: accuracy with its 95 % interval, mean reward, n."""
    has_rewards = any(row.get("mean_reward") is not None for row in rows)
    found = [["suite", "model", "n", "accuracy [95 %]", *(["mean reward"] if has_rewards else [])]]
    for row in rows:
        cells = [str(row.get("suite", "")), str(row.get("model", "")), str(row.get("n", ""))]
        cells.append("{accuracy:.1%} [{accuracy_low:.1%}, {accuracy_high:.1%}]".format(**row) if "accuracy" in row else "")
        reward = row.get("mean_reward")
        found.append([*cells, *(["" if reward is None else f"{reward:.3f}"] if has_rewards else [])])
    return found


def as_text(cells: Cells) -> str:
    """Return a table in columns of equal width, each cell in one line of at most 100 characters."""
    shown = [[_one_line(cell) for cell in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown)


def _one_line(text: str, longest: int = 100) -> str:
    words = " ".join(text.split())
    return "".join(each if each.isprintable() else "?" for each in (words if len(words) <= longest else words[: longest - 3] + "..."))


def as_html(cells: Cells) -> str:
    """Return a table as HTML, with all texts escaped."""
    head, *rows = [[escape(cell) for cell in row] for row in cells]
    lines = ["".join(f"<td style='text-align:left;white-space:pre-wrap'>{cell}</td>" for cell in row) for row in rows]
    titles = "".join(f"<th style='text-align:left'>{cell}</th>" for cell in head)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"
