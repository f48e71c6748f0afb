"""The command of a benchmark: parse arguments, measure, print a table, keep what was found.

python -m bench.NAME [--json FILE] [...]

FILE          what was measured
FILE as .md   the table
FILE as .svg  the figure, where the benchmark draws one
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from etude.errors import UserError

Found = Mapping[str, Any]


class Argument(NamedTuple):
    """An argument of the command line, of its default's type: a list takes several values, False is a flag, None a path that may lack."""

    default: Any
    help: str = ""
    choices: Sequence[str] | None = None

    def add_to(self, parser: argparse.ArgumentParser, name: str) -> None:
        if self.default is False:
            parser.add_argument(name, action="store_true", help=self.help)
            return
        is_list = isinstance(self.default, list)
        kind: Any = Path if self.default is None else type((self.default or [""])[0] if is_list else self.default)
        few: dict[str, Any] = {"nargs": "*"} if is_list else {}
        parser.add_argument(name, type=kind, **few, **self._asdict())


@dataclass(frozen=True)
class Benchmark:
    """A command that measures what something costs on this machine."""

    name: str
    doc: str | None
    arguments: Mapping[str, Argument]
    measure: Callable[[argparse.Namespace], Found]
    """Measure as the arguments say; `remarks` of what is found say what could not be measured, and end the command with 1."""
    table: Callable[[Found], str]
    draw: Callable[[Found, Path], object] | None = None
    takes_settings: bool = False
    """Whether other words of the command line are the `settings` of a recipe, and no mistake."""

    def main(self) -> None:
        """Measure as the command line says."""
        parser = argparse.ArgumentParser(
            prog=f"python -m bench.{self.name}", description=self.doc, formatter_class=argparse.RawTextHelpFormatter
        )
        for name, argument in self.arguments.items():
            argument.add_to(parser, f"--{name}")
        parser.add_argument("--json", type=Path, help="where what is found is written; the table (.md) beside it")
        chosen, others = parser.parse_known_args()
        if others and not self.takes_settings:
            parser.error(f"unrecognized arguments: {' '.join(others)}")
        chosen.settings = others
        try:
            found = self.measure(chosen)
        except UserError as error:
            sys.exit(f"bench.{self.name}: {error}")
        print(self.table(found))
        if chosen.json:
            self.write(found, chosen.json)
        if remarks := found.get("remarks"):
            sys.exit("\n".join(f"bench.{self.name}: {remark}" for remark in remarks))

    def write(self, found: Found, path: Path) -> None:
        """Write what was found, with its table and figure beside it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
        path.with_suffix(".md").write_text(self.table(found))
        if self.draw:
            self.draw(found, path.with_suffix(".svg"))


def in_process(module: str, function: str, *arguments: Any) -> Any:
    """Call a function in a process of its own, so that its memory is its own; arguments and result are plain values."""
    code = f"import json, sys; from {module} import {function}; print(json.dumps({function}(*json.loads(sys.argv[1]))))"
    done = subprocess.run([sys.executable, "-c", code, json.dumps(arguments)], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])
