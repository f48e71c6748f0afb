"""Make pages of the notebooks, with the outputs that are stored in them: code, what it printed, tables and pictures."""

import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook, which stays beside it for those who download it."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        assert file.abs_src_path is not None
        text = "\n\n".join(blocks(Path(file.abs_src_path)))
        files.append(File.generated(config, file.src_uri.replace(".ipynb", ".md"), content=text))
    return files


def blocks(path: Path) -> Iterator[str]:
    """Yield the Markdown of a notebook, cell by cell, with a link to the notebook below its title."""
    for place, cell in enumerate(json.loads(path.read_text(encoding="utf8"))["cells"]):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield text
        elif text:
            yield fenced(text, ".python")
            yield from filter(None, map(shown, cell["outputs"]))
        if place == 0:
            yield f'<a class="notebook" href="{path.name}" download>Download this page as a notebook</a>'


def shown(output: dict[str, Any]) -> str:
    """Return the Markdown of an output: HTML or a picture where there is one, otherwise text."""
    data = output.get("data", {})
    if "text/html" in data:
        return f'<div class="output">{" ".join("".join(data["text/html"]).split())}</div>'
    if "image/png" in data:
        return f'<img class="output" alt="{escape(alternative(output))}" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    text = "".join(output.get("text", data.get("text/plain", ""))).rstrip()
    return fenced(text, ".text .output") if text else ""


def alternative(output: dict[str, Any]) -> str:
    """Return the text for those who do not see a picture."""
    return str(output.get("metadata", {}).get("alt", "figure drawn by the code above"))


def fenced(text: str, classes: str) -> str:
    """Return a block of code whose fence is longer than any in it."""
    fence = "`" * max(3, *(len(found) + 1 for found in re.findall("`+", text)), 3)
    return f"{fence} {{ {classes} }}\n{text}\n{fence}"
