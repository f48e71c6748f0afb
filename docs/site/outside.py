"""Let pages link to files outside docs, as they do in the repository: on the site they are pages and pictures, too.

A link from docs/costs.md to ../bench/results/step.md becomes one to bench/results/step.md, which is added to the site. LOG.md is its
changelog. A link to anything else outside docs, such as a source file, is left as it is, and mkdocs reports it.
"""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NAMES = {"LOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "README.md": "index.md"}
"""Files of the root with their names on the site."""
SHOWN = (".md", ".svg", ".png")
LINK = re.compile(r"(?<=\]\()(?![a-z]+:)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that pages link to outside docs."""
    waiting = [ROOT / "LOG.md", *(Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path)]
    for path in waiting:
        name = name_on_the_site(path)
        if not files.get_file_from_path(name):
            files.append(File.generated(config, name, abs_src_path=str(path)))
        if path.suffix == ".md":
            waiting += [found for found in linked_from(path) if not found.is_relative_to(DOCS) and found not in waiting]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write links as they are between pages of the site."""
    source = Path(page.file.abs_src_path or DOCS / page.file.src_uri)  # a page that was a notebook has no path
    folder = os.path.dirname(page.file.src_uri)

    def on_the_site(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(source.parent / match[1]))
        known = target.is_relative_to(ROOT) and files.get_file_from_path(name_on_the_site(target))
        return os.path.relpath(name_on_the_site(target), folder) if known else match[1]

    return LINK.sub(on_the_site, markdown)


def linked_from(page: Path) -> list[Path]:
    """Return the pages and pictures of the repository that a page links to."""
    targets = [Path(os.path.normpath(page.parent / link)) for link in LINK.findall(page.read_text(encoding="utf8"))]
    return [path for path in dict.fromkeys(targets) if path.suffix in SHOWN and path.is_relative_to(ROOT) and path.is_file()]


def name_on_the_site(path: Path) -> str:
    """Return the name of a file of the repository on the site: notebooks are pages."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix().replace(".ipynb", ".md")
    name = path.relative_to(ROOT).as_posix()
    return NAMES.get(name, name)
