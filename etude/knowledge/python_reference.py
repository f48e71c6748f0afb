"""Builds a small corpus from Python's own documentation, as files for `etude adapt python`.

    python -m etude.knowledge.python_reference DIR

    pages.jsonl        the language reference (of `pydoc`) and the module docstrings of the standard library: text to train on
    questions.jsonl    "What does shutil.move do?", with the first sentences of four functions of a module as choices; a column `module`
    glossary.jsonl     methods of built-in types (term) with the first sentence of their docstrings (definition), by type (section)

The pages describe methods with other words than their docstrings. Sources are parsed, never imported.
"""

import ast
import json
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from etude.errors import UserError
from etude.randomness import seed_for

Row = dict[str, Any]

_LEAST_WORDS = 4
"""Minimum number of words of a sentence in a question."""
_CHOICES = 4
_TYPES = (str, bytes, bytearray, list, dict, set, frozenset, int, float)


def write(folder: Path) -> dict[str, int]:
    """Write the three files and return their numbers of rows. Raises UserError if this Python lacks its reference or its sources."""
    modules, topics = list(_modules()), list(_topics())
    sets = {"pages": [*topics, *_beginnings(modules)], "questions": list(_questions(modules)), "glossary": list(_methods())}
    if not topics or not all(sets.values()):
        raise UserError(f"this Python came without its {'sources or docstrings' if topics else 'reference (pydoc_data)'}: use another")
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in sets.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf8")
    return {name: len(rows) for name, rows in sets.items()}


def _topics() -> Iterator[Row]:
    """Yield the language reference, a page for each subject."""
    try:
        from pydoc_data.topics import topics
    except ImportError:  # not in some distributions
        return
    for name, text in sorted(topics.items()):
        yield {"title": name, "text": text.strip()}


def _modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield names and syntax trees of the standard library's modules that are written in Python."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    for name in sorted(sys.stdlib_module_names):
        places = (folder / f"{name}.py", folder / name / "__init__.py")
        file = next((place for place in places if place.is_file()), None)
        if file is not None and not name.startswith("_"):
            yield name, ast.parse(file.read_text(encoding="utf8", errors="replace"))


def _beginnings(modules: list[tuple[str, ast.Module]]) -> Iterator[Row]:
    for name, tree in modules:
        if text := ast.get_docstring(tree):
            yield {"title": name, "text": text}


def _questions(modules: list[tuple[str, ast.Module]]) -> Iterator[Row]:
    """Yield a question for every function of a module that has enough functions, with three other functions' sentences as choices."""
    for module, tree in modules:
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
        first_sentences = {node.name: _first_sentence(ast.get_docstring(node), node.name) for node in functions}
        sentences = {name: sentence for name, sentence in first_sentences.items() if sentence}
        for name, sentence in sentences.items():
            others = [other for other in dict.fromkeys(sentences.values()) if other != sentence]
            if len(others) >= _CHOICES - 1:
                draw = np.random.default_rng(seed_for("python reference", module, name))
                chosen = [sentence, *(others[place] for place in draw.permutation(len(others))[: _CHOICES - 1])]
                choices = [chosen[place] for place in draw.permutation(_CHOICES)]
                asked = {"question": f"What does {module}.{name} do?", "choices": choices, "answer": choices.index(sentence)}
                yield asked | {"module": module}


def _methods() -> Iterator[Row]:
    for kind in _TYPES:
        seen = set[str]()
        for name in sorted(vars(kind)):
            sentence = _first_sentence(getattr(kind, name).__doc__, name) if not name.startswith("_") else None
            if sentence and sentence not in seen:
                seen.add(sentence)
                yield {"section": kind.__name__, "term": name, "definition": sentence}


def _first_sentence(text: str | None, name: str) -> str | None:
    """Return the first sentence; None if it is short or contains the name it describes.

    >>> _first_sentence("Return the upper case.\\n\\nMore.", "upper"), _first_sentence("Return a copy of all items.", "copy")
    (None, None)
    >>> _first_sentence("Remove all items from the list. It is empty then.", "clear")
    'Remove all items from the list.'
    """
    paragraph = " ".join((text or "").strip().split("\n\n")[0].split())
    sentence = paragraph.split(". ")[0].rstrip(".") + "."
    is_telling = len(sentence.split()) >= _LEAST_WORDS and name.lower() not in sentence.lower()
    return sentence if is_telling and "->" not in sentence else None


def main() -> None:
    """Run the command. Raises SystemExit for wrong arguments or a failure."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit("usage: python -m etude.knowledge.python_reference DIR")
    try:
        found = write(Path(sys.argv[1]))
    except (UserError, OSError) as error:
        raise SystemExit(f"python_reference: {error}") from None
    print(", ".join(f"{count:,} {name}" for name, count in found.items()), f"in {sys.argv[1]}")


if __name__ == "__main__":
    main()
