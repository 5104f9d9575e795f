"""Execute docs/tour.md as a notebook: `python -m docs.site.notebook`, or `make notebook`."""

import os
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

DOCS = Path(__file__).parents[1]
SOURCE = DOCS / "tour.md"
NOTEBOOK = DOCS / "tour.ipynb"


def executed(source: Path, folder: Path) -> nbformat.NotebookNode:
    """Return the notebook of a Markdown file, executed in a folder.

    Raises:
      CellExecutionError: a cell raised.
    """
    notebook = jupytext.read(source)
    paths = str(DOCS.parent), os.environ.get("PYTHONPATH", "")
    # The code of this checkout, whatever is installed.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # they are drawn at random
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if is_result(output)]
            for output in cell.outputs:
                if output.output_type == "stream":
                    output.text = f"{output.text.rstrip()}\n"
    return notebook


def is_result(output: nbformat.NotebookNode) -> bool:
    """Say whether an output is of the code's: the progress of a training is text that is drawn."""
    if output.output_type == "display_data":
        return any(kind.startswith("image/") for kind in output.data)
    return not (output.output_type == "stream" and output.name == "stderr")


def main() -> None:
    """Write the notebook beside its source."""
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(executed(SOURCE, Path(folder)), NOTEBOOK)
    print(f"{NOTEBOOK.relative_to(DOCS.parent)}: {NOTEBOOK.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
