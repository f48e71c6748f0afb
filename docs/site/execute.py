"""Run the notebooks of the tutorials, and store their outputs: `make notebooks`, or this file with the names of some.

Each runs in an empty folder, where it may leave what it makes.
"""

import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).parents[1] / "tutorials"


def main(paths: list[Path]) -> None:
    """Execute notebooks one after another; an error in a cell ends the program, and leaves the file as it was."""
    os.environ["COLUMNS"] = "100"
    for path in paths:
        print(path.stem, flush=True)
        notebook = nbformat.read(path, as_version=4)
        with TemporaryDirectory() as folder:
            NotebookClient(notebook, timeout=None, resources={"metadata": {"path": folder}}).execute()
        nbformat.write(plain(notebook), path)


def plain(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove what differs from one execution to the next and says nothing: times of cells, names of cells, progress on stderr."""
    for place, cell in enumerate(notebook.cells):
        cell.metadata, cell["id"] = {}, f"cell-{place}"
        if cell.cell_type == "code":
            cell.outputs = joined([as_text(output) for output in cell.outputs if output.get("name") != "stderr"])
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def as_text(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return printed text as a terminal shows it in the end, without colours; `rich` prints tables as preformatted HTML."""
    if output.get("data", {}).get("text/html", "").startswith("<pre"):
        output = nbformat.v4.new_output("stream", name="stdout", text=output.data["text/plain"])
    if output.output_type == "stream":
        last = re.sub(r"[^\n]*\x1b\[2K", "", output.text)  # a line that was written again
        lines = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", last).split("\n")
        output.text = "\n".join(line.rstrip() for line in lines)
    return output


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Return outputs with the pieces of printed text as one."""
    found: list[nbformat.NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and found and found[-1].output_type == "stream":
            found[-1].text += output.text
        else:
            found.append(output)
    return found


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or sorted(TUTORIALS.glob("*.ipynb")))
