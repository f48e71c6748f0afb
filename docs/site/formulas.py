"""Turn formulas into MathML, which browsers draw by themselves: no script and no font is loaded.

Pages write formulas as GitHub reads them: $...$ within a line, $$ on lines of their own.
"""

import re
from html import unescape

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Convert the formulas that the extension `arithmatex` marked."""
    return FORMULA.sub(lambda found: drawn(unescape(found[3]), is_block=found[2] == "["), html)


def drawn(formula: str, *, is_block: bool) -> str:
    """Return a formula as MathML; one on lines of its own scrolls if it is wider than the page."""
    markup = convert(formula.strip(), display="block" if is_block else "inline")
    return f'<div class="formula" tabindex="0">{markup}</div>' if is_block else markup
