"""Put the table of a study where a page has a place for it.

A page marks the place with `<!-- table: NAME -->` and `<!-- end -->` on lines of their own. Links in a table are those of the README.
"""

import re
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("*/*.md")))


def fill(name: str, table: str, pages: Sequence[Path] = PAGES) -> None:
    """Write the table of the study `name` into the pages that have a place for it."""
    for page in pages:
        text = page.read_text(encoding="utf8")
        if (new := filled(text, name, seen_from(page, table))) != text:
            page.write_text(new, encoding="utf8")


def seen_from(page: Path, table: str) -> str:
    """Return a table with links as a page of `docs` has them."""
    return table.replace("](docs/", "](") if page.parent.name == "docs" else table


def filled(text: str, name: str, table: str) -> str:
    """Return the text with the table of the study `name` in its place, if it has one."""
    place = re.compile(rf"(?<=<!-- table: {name} -->\n).*?(?=<!-- end -->)", re.DOTALL)
    return place.sub(lambda _: table, text, count=1)  # after an empty place a second match would reach to the next end
