"""Leave two intervals in a row, [0.1, 0.4] [0.2, 0.3], as they are: Markdown takes them for a link to a name."""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

TAKEN_FOR_A_LINK = re.compile(r'<autoref identifier="([+-]?[\d.]+[^"]*)"[^>]*>(.*?)</autoref>', re.DOTALL)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write intervals back, before the plugin looks for what they would name."""
    return TAKEN_FOR_A_LINK.sub(r"[\2] [\1]", html)
