"""``interp browse``: a small notebook with the browser, opened in JupyterLab."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from ..common.storage import write_text

_TEXT = """# {run}

Click into the cell below and press Shift+Enter.
Descriptions go to `descriptions.yml` in the run folder.\
"""
_CODE = """from interp_lib.clusters.browser import ClusterBrowser
from interp_lib.clusters.states import load_states, sample_rows
from interp_lib.common.tsne import tsne

states = load_states({states!r})
# To switch to a t-SNE map as well (half a minute for 5,000 states), put these lines in place of the last one:
# rows = sample_rows(states, 5000)
# ClusterBrowser({run_dir!r}, states, rows=rows, tsne=tsne(states.feature[rows]))
ClusterBrowser({run_dir!r}, states)\
"""
_PROTOTYPE_TEXT = """# {run}

Click into the cell below and press Shift+Enter. The agent then plays {episodes} episodes, with its mean actions.\
"""
_PROTOTYPE_CODE = """from interp_lib import load_agent
from interp_lib.prototypes import PrototypeStudy
from interp_lib.prototypes.browser import PrototypeBrowser

agent = load_agent({run_dir!r})
PrototypeBrowser(PrototypeStudy.record(agent, {task!r}, {episodes}))\
"""


def write_notebook(run_dir: Path | str, states: Path | str, path: Path | str) -> Path:
    """Write a notebook that shows the browser of ``run_dir``; the paths in it are relative to its folder.

    Raises:
        InterpError: the folder can't be written to.
    """
    path = Path(path)
    states = Path(os.path.relpath(Path(states).resolve(), path.parent.resolve())).as_posix()
    return _write(path, _TEXT, _CODE, run_dir, states=states)


def write_prototype_notebook(run_dir: Path | str, task: str, path: Path | str, *, episodes: int = 10) -> Path:
    """Write a notebook that plays ``episodes`` episodes with a ProtoSAC run and browses their decisions.

    Raises:
        InterpError: the folder can't be written to.
    """
    return _write(Path(path), _PROTOTYPE_TEXT, _PROTOTYPE_CODE, run_dir, task=task, episodes=episodes)


def _write(path: Path, text: str, code: str, run_dir: Path | str, **names: object) -> Path:
    import nbformat

    run_dir = Path(run_dir).resolve()
    names |= {"run": run_dir.name, "run_dir": Path(os.path.relpath(run_dir, path.parent.resolve())).as_posix()}
    v4 = nbformat.v4
    cells = [v4.new_markdown_cell(text.format(**names)), v4.new_code_cell(code.format(**names))]
    kernel = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}}
    write_text(path, nbformat.writes(v4.new_notebook(cells=cells, metadata=kernel)))
    return path


def open_lab(notebook: Path, *, port: int | None = None, open_browser: bool = True) -> NoReturn:
    """Become JupyterLab, opened on ``notebook``; Ctrl-C then ends it as usual."""
    command = [sys.executable, "-m", "jupyterlab", str(notebook.resolve())]
    command += [f"--ServerApp.port={port}"] if port is not None else []
    command += [] if open_browser else ["--no-browser"]
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    sys.stdout.flush()
    os.execv(command[0], command)
