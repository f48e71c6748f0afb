"""Promise that the site needs no network: a page that would load a script, a style or a picture from elsewhere ends the build."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

LOADS = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["']?(https?:)?//[^>]*>""")


def on_post_build(config: MkDocsConfig) -> None:
    """Raise PluginError for the first page that loads something from elsewhere."""
    for page in sorted(Path(config.site_dir).rglob("*.html")):
        if found := LOADS.search(page.read_text(encoding="utf8")):
            raise PluginError(f"{page.name} is not whole without a network: {found[0]}")
