"""The README.md of an exported folder: what it is, what wrote it, and how it is run."""

import re
from pathlib import Path

from etude.export.formats import Format

CARD = "README.md"
_MARK = "<!-- written by etude models export -->"
_FACTS = re.compile(r"---\n.*?\n---\n", re.DOTALL)


def write_card(folder: Path, kind: Format, quantization: str, model: str) -> None:
    """Write the card of what was exported to `folder`. Licence, base model and data sets of the model's own card stand at its head."""
    own = Path(model) / CARD
    facts = _FACTS.match(own.read_text(encoding="utf8")) if own.is_file() else None
    name = Path(model).name
    lines = [
        *([facts[0]] if facts else []),
        _MARK,
        "",
        f"# {name}, {kind.name} {quantization}",
        "",
        f"`etude models export` wrote this folder from the model {name}: {kind.summary}. In the folder:",
        "",
        *(["```sh", *kind.commands_at("."), "```", ""] if kind.commands else []),
        *["```python", *kind.lines_at("."), "```", ""],
    ]
    if (folder / "etude.yaml").is_file():
        lines += ["`etude.yaml` has the system message and the instruction that the model was prompted with.", ""]
    (folder / CARD).write_text("\n".join(lines), encoding="utf8")


def is_card(path: Path) -> bool:
    """Return whether a file is the card of an export."""
    return path.is_file() and _MARK in path.read_text(encoding="utf8", errors="replace")
