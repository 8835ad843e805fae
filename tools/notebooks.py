"""Runs the notebooks of the examples, and keeps what is worth keeping.

    python tools/notebooks.py               # all of them, as they stand
    python tools/notebooks.py 2_inspect     # those whose names hold a text

Each runs in an empty folder. Kept are pictures, and what cells print; not what
libraries write beside, nor times and counts of runs, so that a notebook changes
only where what it shows does.
"""

import argparse
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import nbclient
import nbformat

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
PARAMETERS = "parameters"
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
# Small pictures.
_SETUP = """
import matplotlib_inline.backend_inline
matplotlib_inline.backend_inline.set_matplotlib_formats(
    "jpeg", pil_kwargs={"quality": 80}
)
"""


def find_notebooks() -> list[Path]:
    """Returns the notebooks, in their order."""
    return sorted(FOLDER.glob("*.ipynb"))


def run_notebook(
    path: Path, parameters: Mapping[str, Any] | None = None
) -> nbformat.NotebookNode:
    """Runs a notebook, with other values in its cell of parameters.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    (cell,) = (c for c in notebook.cells if _is_of_parameters(c))
    if parameters:
        names = ", ".join(parameters)
        values = ", ".join(map(repr, parameters.values()))
        cell.source += f"\n{names} = {values}"
    # Runs before all others, and is not kept.
    notebook.cells.insert(0, nbformat.v4.new_code_cell(_SETUP))
    # Kernels inherit the variables of this process.
    quiet = mock.patch.dict(os.environ, _QUIET)
    with tempfile.TemporaryDirectory() as folder, quiet:
        nbclient.NotebookClient(
            notebook,
            timeout=1800,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
        ).execute()
        _clean(notebook, folder)
    del notebook.cells[0]
    return notebook


def write_notebook(path: Path) -> None:
    """Runs a notebook and writes it with its pictures."""
    notebook = run_notebook(path)
    temporary = path.with_suffix(".part")
    nbformat.write(notebook, temporary)
    os.replace(temporary, path)


def _is_of_parameters(cell: nbformat.NotebookNode) -> bool:
    return PARAMETERS in cell.metadata.get("tags", [])


def _clean(notebook: nbformat.NotebookNode, folder: str) -> None:
    notebook.metadata = nbformat.NotebookNode(
        kernelspec={
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        language_info={"name": "python"},
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        cell.metadata = nbformat.NotebookNode(
            {"tags": [PARAMETERS]} if _is_of_parameters(cell) else {}
        )
        kept = []
        for output in cell.outputs:
            # TensorFlow's go to where the notebook prints.
            is_log = output.get("text", "").startswith("WARNING:tensorflow")
            if is_log or output.get("name") == "stderr":
                continue
            output.pop("execution_count", None)
            if output.output_type == "execute_result":
                output["execution_count"] = None
            if output.output_type == "stream":
                output.text = output.text.replace(f"{folder}/", "")
            elif "text/plain" in output.data and len(output.data) > 1:
                # What a picture is called where it cannot be shown.
                output.data["text/plain"] = "(a picture)"
            output["metadata"] = {}
            kept.append(output)
        for output in kept:
            if output.output_type == "stream":
                del output["metadata"]
        cell.outputs = kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="parts of names")
    only = parser.parse_args().only
    for path in find_notebooks():
        if not only or any(text in path.name for text in only):
            print(path.name, flush=True)
            write_notebook(path)


if __name__ == "__main__":
    main()
