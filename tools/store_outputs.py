"""Run the notebooks with their default parameters and store the outputs in them; `make notebooks` calls it.

Needed after a change that alters an output, since `make test` compares with what is stored. Execution times and the
machine's metadata stay out, so that a rerun that changes nothing leaves git clean.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def store_outputs(path: Path) -> None:
    """Execute ``path`` in its folder and write it back; an error leaves the file as it was."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        cell.metadata.pop("papermill", None)
        if cell.cell_type == "code":
            # Progress bars and warnings of libraries say nothing about a result.
            cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
    notebook.metadata = {
        **{name: value for name, value in notebook.metadata.items() if name == "interp"},  # what it needs
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(map(str, Path("notebooks").glob("*.ipynb"))):
        print(f"executing {name}", flush=True)
        store_outputs(Path(name))
