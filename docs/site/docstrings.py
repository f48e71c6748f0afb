"""Show docstrings as they are written: what stands in columns, and examples with >>>, is code."""

import re
from typing import Any

import griffe

IN_COLUMNS = re.compile(r"^(>>> |\.\.\. |\S.*\S {3,}\S)", re.MULTILINE)


class AsWritten(griffe.Extension):
    """Indent such paragraphs, which Markdown then takes for code."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = "\n\n".join(map(as_code, obj.docstring.value.split("\n\n")))


def as_code(paragraph: str) -> str:
    """Return a paragraph, indented if it is set in columns and not indented yet."""
    if paragraph.startswith(" ") or not IN_COLUMNS.search(paragraph):
        return paragraph
    return "\n".join(f"    {line}" for line in paragraph.replace("  # doctest: +SKIP", "").splitlines())
