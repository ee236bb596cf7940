"""The pipeline on small real notebooks, executed by papermill in real kernels (three of them in this file)."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import Lazy

from interp_lib.errors import InterpError
from interp_lib.outputs import Outputs, saved_outputs
from interp_lib.pipeline import reproduce
from interp_lib.pipeline.progress import watch
from interp_lib.pipeline.reproduce import _environment_parameters, refresh, select_notebooks
from interp_lib.pipeline.runner import CellProgress, NotebookError, declared_parameters

nbformat = Lazy("nbformat")

PARAMETERS = (
    'profile = "quick"  # or paper\nenv = "coinrun"\ntask = "pendulum"\nfigures_dir = "../figures"\nseeds = [0, 1]'
)
SAVE = """
import json, os, sys
import pandas
from interp_lib.outputs import Outputs
outputs = Outputs(figures_dir, "03_good", parameters={"profile": profile, "env": env})
outputs.table(pandas.DataFrame({"seed": seeds}), "seeds", "Which seeds.", ["sppo-ninja-s0"])
print(json.dumps([profile, env, task, figures_dir, sys.executable, os.getcwd(), os.getpid()]))
"""


def write_notebook(path: Path, *cells: str, parameters: str | None = PARAMETERS) -> Path:
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    if parameters is not None:
        notebook.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    for cell in cells:
        notebook.cells.append(
            nbformat.v4.new_markdown_cell(cell) if cell.startswith("#") else nbformat.v4.new_code_cell(cell)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.fixture(autouse=True, scope="module")
def jupyter(tmp_path_factory):
    """A home with a foreign "python3" kernel that can't start, and the package importable from kernels."""
    home = tmp_path_factory.mktemp("jupyter")
    spec = home / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["no-such-python", "{connection_file}"], "display_name": "", "language": ""}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(home))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """One run over a notebook that fails, one without parameters cell and one that works, in this order."""
    root = tmp_path_factory.mktemp("project")
    notebooks, figures = root / "notebooks", root / "figures"
    write_notebook(
        notebooks / "01_fails.ipynb", "# Title", "## Part", "1 + 1", "raise ValueError('no luck\\nat all')", "2"
    )
    write_notebook(notebooks / "02_untagged.ipynb", "1", parameters=None)
    write_notebook(notebooks / "03_good.ipynb", "# Works", SAVE)
    write_notebook(notebooks / "scratch.ipynb", "1")
    Outputs(figures, "01_fails").image(np.zeros((4, 4), np.uint8), "old", "From an earlier run.")
    before = {path.name: path.read_bytes() for path in notebooks.iterdir()}
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = reproduce(env="ninja", profile="paper", figures=figures, notebooks=notebooks)
    return SimpleNamespace(
        code=code,
        out=out.getvalue(),
        err=err.getvalue(),
        root=root,
        figures=figures,
        notebooks=notebooks,
        before=before,
    )


def outcome(figures: Path, name: str) -> dict:
    return json.loads((figures / "executed" / f"{name}.result.json").read_text())


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_others_run_when_a_notebook_fails(reproduced):
    assert reproduced.code == 1
    assert [outcome(reproduced.figures, n)["status"] for n in ("01_fails", "02_untagged", "03_good")] == [
        "failed",
        "failed",
        "done",
    ]
    assert outcome(reproduced.figures, "03_good")["seconds"] > 0


def test_parameters_reach_this_interpreter_in_the_notebooks_folder(reproduced):
    executed = nbformat.read(reproduced.figures / "executed" / "03_good.ipynb", as_version=4)
    (output,) = executed.cells[-1].outputs
    *values, pid = json.loads(output.text)
    assert values == ["paper", "ninja", "pendulum", str(reproduced.figures), sys.executable, str(reproduced.notebooks)]
    assert not alive(pid)  # a kernel left running would hold its memory through the notebooks after it


def test_a_failing_cell_is_named_and_its_executed_copy_kept(reproduced):
    error = outcome(reproduced.figures, "01_fails")["error"]
    # In [1] parameters, [2] injected ones, [3] 1 + 1, [4] the failing one.
    assert error == {"exception": "ValueError", "message": "no luck\nat all", "cell": 4}
    copy = reproduced.figures / "executed" / "01_fails.ipynb"
    cells = {cell.execution_count: cell for cell in nbformat.read(copy, as_version=4).cells if cell.cell_type == "code"}
    assert cells[3].outputs[0].data["text/plain"] == "2"
    assert cells[4].outputs[0].ename == "ValueError"
    assert cells[None].source == "2"  # the cell after it never ran
    assert "ValueError: no luck" in reproduced.out
    assert "executed/01_fails.ipynb" in reproduced.out
    assert "02_untagged.ipynb has no parameters cell" in reproduced.out


def test_old_outputs_of_a_failed_notebook_are_gone_and_new_ones_are_in_the_report(reproduced):
    assert set(saved_outputs(reproduced.figures)) == {"03_good"}
    (output,) = saved_outputs(reproduced.figures)["03_good"]
    assert output.parameters == {"profile": "paper", "env": "ninja"}
    page = (reproduced.figures / "index.html").read_text()
    assert "Which seeds." in page and "In [4] ValueError: no luck" in page
    for name in ("01_fails", "03_good"):
        assert f'href="executed/{name}.html"' in page
        assert (reproduced.figures / "executed" / f"{name}.html").stat().st_size > 1000


def test_stored_notebooks_are_never_modified(reproduced):
    assert {path.name: path.read_bytes() for path in reproduced.notebooks.iterdir()} == reproduced.before


def test_a_log_shows_notebooks_and_cells(reproduced):
    lines = [line.strip() for line in reproduced.err.splitlines()]
    assert lines[0] == "[1/3] 01_fails"
    assert "cell  3/5  Part" in lines
    assert lines[-1].startswith("done in ")


def test_ctrl_c_stops_the_kernel_and_the_report_knows(tmp_path):
    pid_file = tmp_path / "pid"
    write = f"import os; open({str(pid_file)!r}, 'w').write(str(os.getpid()))"
    path = write_notebook(tmp_path / "notebooks" / "01_slow.ipynb", "# Slow", write, "import time; time.sleep(60)")

    def on_cell(progress: CellProgress) -> None:
        if progress.number == progress.total:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        refresh(path, tmp_path / "figures", {"profile": "quick"}, on_cell=on_cell)
    assert time.monotonic() - started < 30
    assert not alive(int(pid_file.read_text()))
    assert outcome(tmp_path / "figures", "01_slow")["status"] == "stopped"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"only": "07"}, "no notebook '07'. Valid: 01_train, 02_prototypes"),
        ({"profile": "fast"}, "unknown profile 'fast'. Valid: quick, paper"),
        ({"source": "old"}, "unknown source 'old'. Valid: pretrained, fresh"),
        ({"env": "nimja"}, "unknown environment 'nimja'. Did you mean ninja"),
        ({"env": "hopper", "only": "1"}, "none of 01_train works on 'hopper'"),
        ({"notebooks": "elsewhere"}, "no numbered notebooks in"),
        ({"figures": "notebooks/01_train.ipynb"}, "cannot write to notebooks/01_train.ipynb"),
    ],
)
def test_bad_arguments_are_one_clear_line_before_anything_runs(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "notebooks" / "01_train.ipynb", parameters='env = "coinrun"')
    write_notebook(tmp_path / "notebooks" / "02_prototypes.ipynb", parameters='task = "pendulum"')
    with pytest.raises(InterpError) as caught:
        reproduce(**arguments)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.glob("figures/executed/*"))


def test_a_read_only_figures_folder_is_said_before_anything_runs(monkeypatch):
    root = os.geteuid() == 0  # who may write anywhere, so look from the side of somebody who may not
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        monkeypatch.chdir(folder)
        write_notebook(Path("notebooks/01_train.ipynb"))
        Path("figures").mkdir(0o555)
        if root:
            os.seteuid(65534)
        try:
            with pytest.raises(InterpError, match="cannot write to figures: Permission denied"):
                reproduce()
        finally:
            if root:
                os.seteuid(0)
            monkeypatch.undo()


def test_only_takes_numbers_names_and_lists(tmp_path):
    for name in ("01_train", "02_evaluate", "10_extra"):
        write_notebook(tmp_path / f"{name}.ipynb")

    def chosen(only):
        return [path.stem for path in select_notebooks(tmp_path, only)]

    assert chosen(None) == ["01_train", "02_evaluate", "10_extra"]
    assert chosen("2") == chosen("02") == chosen("02_evaluate.ipynb") == ["02_evaluate"]
    assert chosen("10, 01_train") == chosen(["1", "10"]) == ["01_train", "10_extra"]


def test_an_environment_goes_to_the_parameters_of_its_kind():
    declared = {"env": "coinrun", "task": "Pendulum-v1", "seed": 0}
    assert _environment_parameters(declared, "ninja") == ["env"]
    assert _environment_parameters(declared, "hopper") == ["task"]
    assert _environment_parameters({"env": "pendulum"}, "hopper") == ["env"]
    assert _environment_parameters({"seed": 0}, "hopper") == _environment_parameters(declared, None) == []


def test_declared_parameters_are_names_and_defaults(tmp_path):
    path = write_notebook(tmp_path / "01.ipynb", parameters=PARAMETERS + "\nwhere = Path('.')")
    assert declared_parameters(path) == {
        "profile": "quick",
        "env": "coinrun",
        "task": "pendulum",
        "figures_dir": "../figures",
        "seeds": [0, 1],
        "where": "Path('.')",
    }
    path.write_text("{")
    with pytest.raises(InterpError, match="not a readable notebook"):
        declared_parameters(path)


def test_an_error_is_one_line():
    assert str(NotebookError("ValueError", "first\nsecond", 4)) == "In [4] ValueError: first"
    assert str(NotebookError("KeyboardInterrupt", "")) == "KeyboardInterrupt"


def test_a_terminal_gets_a_bar_with_cell_and_section():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    with watch("[1/4] 01_train", terminal) as watcher:
        watcher.cell(CellProgress(3, 12, "Learning curves"))
        watcher.finish("done in 3.0 s")
    text = terminal.getvalue()
    assert "3/12 cells" in text and "Learning curves" in text
    assert text.endswith("[1/4] 01_train  done in 3.0 s\n")
