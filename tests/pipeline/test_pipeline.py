"""The pipeline on small real notebooks: Snakemake plans and runs them, papermill executes them in real kernels."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, Lazy

from interp_lib.common.errors import InterpError
from interp_lib.common.outputs import Outputs, saved_outputs
from interp_lib.common.storage import read_json
from interp_lib.pipeline.imports import dependencies
from interp_lib.pipeline.manifest import compare_outputs
from interp_lib.pipeline.notebooks import declared_parameters, environment_parameters, select_notebooks
from interp_lib.pipeline.plan import environments_of, make_plan
from interp_lib.pipeline.progress import Watcher
from interp_lib.pipeline.reproduce import reproduce
from interp_lib.pipeline.runner import CellProgress, NotebookError

nbformat = Lazy("nbformat")
pandas = Lazy("pandas")

PARAMETERS = (
    'profile = "quick"  # or paper\nenv = "coinrun"\ntask = "pendulum"\nfigures_dir = "../figures"\nseeds = [0, 1]'
)
SAVE = """
import json, os, sys
import pandas
from interp_lib.common.outputs import Outputs
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
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """One run over a notebook that works and four that fail: by an exception, without parameters cell, without the run
    it shows, without a parameter."""
    root = tmp_path_factory.mktemp("project")
    notebooks, figures = root / "notebooks", root / "figures"
    write_notebook(
        notebooks / "01_fails.ipynb", "# Title", "## Part", "1 + 1", "raise ValueError('no luck\\nat all')", "2"
    )
    write_notebook(notebooks / "02_untagged.ipynb", "1", parameters=None)
    write_notebook(notebooks / "03_good.ipynb", "# Works", SAVE)
    write_notebook(
        notebooks / "04_no_run.ipynb",
        "from interp_lib.pipeline.workbench import Workbench",
        'Workbench("04_no_run", profile="quick", source="pretrained", figures_dir=figures_dir).run("sppo", env)',
    )
    write_notebook(notebooks / "05_forgot.ipynb", "print(figures_dir)", parameters='profile = "quick"')
    write_notebook(notebooks / "scratch.ipynb", "1")
    Outputs(figures, "01_fails").image(np.zeros((4, 4), np.uint8), "old", "From an earlier run.")
    before = {path.name: path.read_bytes() for path in notebooks.iterdir()}
    done = run_reproduce(figures, notebooks, "--env", "ninja", "--profile", "paper")
    return SimpleNamespace(
        code=done.returncode,
        out=done.stdout,
        err=done.stderr,
        root=root,
        figures=figures,
        notebooks=notebooks,
        before=before,
    )


def run_reproduce(
    figures: Path, notebooks: Path, *options: str, timeout: float = 300, **more
) -> subprocess.CompletedProcess:
    """The real command, in a process of its own."""
    command = [sys.executable, "-m", "interp_lib.cli", "reproduce"]
    command += ["--figures", str(figures), "--notebooks", str(notebooks), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, **more)


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


def test_a_missing_run_or_parameter_is_said_as_it_is(reproduced):
    assert "InterpError: ../checkpoints has no sppo run on ninja (there: none). Train one: interp train sppo ninja" in (
        reproduced.out
    )
    assert "NameError: name 'figures_dir' is not defined" in reproduced.out


def test_no_room_for_an_output_fails_its_notebook_alone_and_loses_nothing(tmp_path):
    big = SAVE.replace("03_good", "02_big").replace('{"seed": seeds}', '{"seed": range(800_000)}')
    write_notebook(tmp_path / "notebooks" / "02_big.ipynb", "# Big", big)
    write_notebook(tmp_path / "notebooks" / "03_good.ipynb", "# Works", SAVE)
    figures = tmp_path / "figures"

    def limited(room: int):  # the same for Python as a full disk: a write fails in the middle of a file
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    none = run_reproduce(figures, tmp_path / "notebooks", preexec_fn=limited(10_000))
    assert none.returncode == 2 and "File too large. Make room" in none.stderr and len(none.stderr.splitlines()) == 1
    some = run_reproduce(figures, tmp_path / "notebooks", preexec_fn=limited(4_000_000))
    assert some.returncode == 1
    assert "InterpError: cannot write" in some.stdout and "seeds.csv: File too large" in some.stdout
    assert set(saved_outputs(figures)) == {"03_good"} and not list((figures / "02_big").glob(".*"))
    assert run_reproduce(figures, tmp_path / "notebooks").returncode == 0
    assert set(saved_outputs(figures)) == {"02_big", "03_good"}


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
    lines = reproduced.err.splitlines()
    assert "01_fails  cell  3/5  Part" in lines
    assert any(line.startswith("03_good  done in ") for line in lines)


def test_the_summary_says_what_became_of_each_and_why(reproduced):
    rows = {line.split()[0]: line for line in reproduced.out.splitlines() if line[:2].isdigit()}
    assert rows["01_fails"].split()[1] == rows["02_untagged"].split()[1] == "failed"
    assert rows["03_good"].split()[1] == "done" and rows["03_good"].endswith("not made yet")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with two notebooks that work, reproduced once. The tests that use it go on from where others left it,
    so each states what it starts from."""
    root = tmp_path_factory.mktemp("project")
    write_notebook(root / "notebooks" / "03_good.ipynb", "# Works", SAVE)
    second = SAVE.replace("03_good", "05_curves") + "\nimport interp_lib.runs.curves"
    write_notebook(root / "notebooks" / "05_curves.ipynb", "# Curves", second)
    done = run_reproduce(root / "figures", root / "notebooks")
    assert done.returncode == 0, done.stderr
    return root


def would_run(root: Path, **options: str) -> dict[str, str]:
    """Target → why, as ``--dry-run`` prints it."""
    printed = io.StringIO()  # in this process: starting another takes most of the time
    with contextlib.redirect_stdout(printed):
        assert reproduce(figures=root / "figures", notebooks=root / "notebooks", dry_run=True, **options) == 0
    lines = [line.strip() for line in printed.getvalue().splitlines() if line.startswith("  ")]
    return {line.split("  ")[0].split()[-1]: line.partition("  ")[2].strip() for line in lines}


def test_a_second_time_nothing_is_done(project):
    before = {path: path.stat().st_mtime_ns for path in (project / "figures").rglob("*.json")}
    done = run_reproduce(project / "figures", project / "notebooks")
    assert done.returncode == 0 and "nothing to do" in done.stdout
    changed = {p for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert {path.name for path in changed} <= {"plan.json"}


def test_only_what_depends_on_a_change_would_run(project):
    assert would_run(project) == {}
    assert set(would_run(project, profile="paper")) == {"03_good", "05_curves", "report"}
    notebook = project / "notebooks" / "03_good.ipynb"
    text = notebook.read_text()
    os.utime(notebook)
    assert would_run(project) == {}  # touched, but the same
    notebook.write_text(text.replace("# Works", "# Works well"))
    assert set(would_run(project)) == {"03_good", "report"}
    notebook.write_text(text)
    output = project / "figures" / "05_curves" / "seeds.csv"
    content = output.read_bytes()
    output.write_bytes(content + b"9\n")
    assert would_run(project)["05_curves"] == "05_curves/seeds.csv was changed"
    output.unlink()
    assert would_run(project)["05_curves"] == "05_curves/seeds.csv is missing"
    output.write_bytes(content)
    assert would_run(project) == {}


def test_a_changed_plotting_module_reaches_the_notebooks_that_draw_with_it(project, tmp_path):
    """In a copy of the package, where one plotting function is really edited."""
    package = shutil.copytree(ROOT / "interp_lib", tmp_path / "interp_lib")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    figures = shutil.copytree(project / "figures", tmp_path / "figures")
    # What is there is taken as made with the copy: --touch runs nothing.
    done = run_reproduce(figures, project / "notebooks", "--", "--touch", env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plots = package / "runs" / "curves.py"
    plots.write_text(plots.read_text().replace("alpha=0.25", "alpha=0.3"))
    done = run_reproduce(figures, project / "notebooks", "--dry-run", env=environment, cwd=tmp_path)
    assert "notebook 05_curves" in done.stdout and "interp_lib/runs/curves.py" in done.stdout
    assert "03_good" not in done.stdout


def test_dependencies_follow_imports_inside_functions_and_names_in_texts():
    package = ROOT / "interp_lib"
    names = {path.relative_to(package).as_posix() for path in dependencies(package / "runs/published.py")}
    assert "runs/published_returns.csv.gz" in names
    names = {path.relative_to(package).as_posix() for path in dependencies(package / "runs/folder.py")}
    assert "agents/sppo/agents.py" in names and "agents/protosac/protosac.py" in names  # looked up by name
    assert "runs/curves.py" not in names and "runs/folder.py" not in names


def plan_of(figures, **chosen):
    options = {"profile": "quick", "source": "pretrained", "only": None, "env": None, **chosen}
    return make_plan(**options, figures=figures, notebooks=ROOT / "notebooks")


def test_pages_to_explore_are_made_of_the_runs_that_notebooks_explain(tmp_path):
    plan = partial(plan_of, tmp_path)
    released = plan()
    clusters, *_, prototypes = sorted(released.explorers(), key=lambda run: run.startswith("protosac"))
    assert prototypes == "protosac-pendulum-s100" and clusters.startswith("sppo-")
    needed = released.explorer_inputs(prototypes)
    assert all(any(file.endswith(end) for file in needed) for end in ("prototypes/page.py", "prototypes/page.html.j2"))
    assert any(file.endswith("common/page.css.j2") for file in needed)
    assert any(file.endswith("protosac-pendulum-s100/policy.safetensors") for file in needed)
    assert not any(file.startswith("states/") for file in needed)
    assert released.explorer_parameters(prototypes) == {"episodes": 10, "seed": 0}
    assert released.states_target(clusters) in released.explorer_inputs(clusters)
    assert any(file.endswith("common/page.js.j2") for file in released.explorer_inputs(clusters))
    assert released.explorer_parameters(clusters) == {}
    fresh = plan(source="fresh", only="04", env="hopper", profile="paper")
    assert fresh.explorers() == ["protosac-hopper-s0", "sppo-coinrun-s2021"]
    budgets = {run.name: run.timesteps for run in fresh.fresh_runs()}
    assert budgets["protosac-hopper-s0"] == 1_000_000 and budgets["sppo-coinrun-s2021"] == 25_000_000
    assert ".pipeline/train/protosac-hopper-s0.json" in fresh.explorer_inputs("protosac-hopper-s0")
    assert fresh.explorer_parameters("protosac-hopper-s0") == {"episodes": 50, "seed": 0}
    assert not any(run.startswith("protosac") for run in plan(only="03").explorers())


def test_variants_of_the_runs_that_a_notebook_names_are_inputs_too(tmp_path):
    plan = partial(plan_of, tmp_path)
    stem, variant = "03_embed_and_cluster", "sppo-coinrun-200levels-s2021"
    coinrun = plan(only="03")
    assert coinrun.may_use(stem, variant) and any(f"/{variant}/" in file for file in coinrun.notebook_inputs(stem))
    assert not plan(only="03", env="ninja").may_use(stem, variant) and not coinrun.may_use(stem, "sppo-ninja-s2021")
    assert not coinrun.may_use(stem, "sac-coinrun-s0")


def test_states_that_a_notebook_left_without_the_pipeline_are_collected_again(tmp_path, capsys):
    """Nothing says what such a file was made of."""
    states = tmp_path / "states" / "sppo-coinrun-s2021-quick.h5"
    states.parent.mkdir(parents=True)
    states.touch()
    notebooks = ROOT / "notebooks"
    assert reproduce(only="03", figures=tmp_path, notebooks=notebooks, dry_run=True) == 0
    assert "  states sppo-coinrun-s2021 " in capsys.readouterr().out


def test_every_environment_with_an_agent_gets_the_notebooks_about_one():
    notebooks = ROOT / "notebooks"
    found = environments_of(notebooks)
    assert found["ninja"] == ["01_train", "03_embed_and_cluster"]
    assert found["hopper"] == ["01_train", "04_prototype_visualization"]
    assert set(environments_of(notebooks, "03")) == {"coinrun", "fruitbot", "jumper", "ninja"}
    with pytest.raises(InterpError, match="none of 02_evaluate_generalization is about one that has"):
        environments_of(notebooks, "02")


def test_each_environment_has_a_folder_and_the_page_links_to_it(tmp_path):
    run = "sppo-ninja-s2021"
    shutil.copytree(ROOT / "checkpoints" / run, tmp_path / "checkpoints" / run)
    write_notebook(tmp_path / "notebooks" / "03_good.ipynb", "# Works", SAVE)
    figures = tmp_path / "figures"
    figures.mkdir()
    (figures / "index.html").touch()
    done = run_reproduce(figures, tmp_path / "notebooks", "--env", "all")
    assert done.returncode == 0 and "1 environment\n" in done.stdout, done.stdout + done.stderr
    (output,) = saved_outputs(figures / "ninja")["03_good"]
    assert output.parameters["env"] == "ninja"
    assert '<a href="ninja/index.html">ninja</a>' in (figures / "index.html").read_text()


def test_the_manifest_says_what_each_output_is_made_of(project):
    manifest = read_json(project / "figures" / "manifest.json")
    entry = manifest["outputs"]["03_good/seeds.csv"]
    digest = hashlib.sha256((project / "figures" / "03_good" / "seeds.csv").read_bytes()).hexdigest()
    assert entry["sha256"] == digest and entry["made"] == "03_good"
    assert entry["parameters"] == {"profile": "quick", "env": "coinrun"}
    made = manifest["made"]["03_good"]
    assert made["seconds"] > 0 and made["libraries"]["torch"] and made["hardware"]["cores"] >= 1
    assert set(made["git"]) == {"revision", "dirty"}
    assert str(project) not in (project / "figures" / "manifest.json").read_text()


@pytest.mark.slow
def test_another_executor_makes_the_same(project, tmp_path):
    """The DAG as a cluster gets it: each step a job script, handed to a command that runs it elsewhere."""
    submit = tmp_path / "submit.sh"
    submit.write_text('#!/bin/sh\nsetsid sh "$1" >/dev/null 2>&1 &\necho $!\n')
    submit.chmod(0o755)
    options = ["--executor", "cluster-generic", "--jobs", "2", "--"]
    options += ["--cluster-generic-submit-cmd", str(submit), "--seconds-between-status-checks", "1"]
    done = run_reproduce(tmp_path / "figures", project / "notebooks", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    here, there = (read_json(root / "figures" / "manifest.json")["outputs"] for root in (project, tmp_path))
    assert here == there


@pytest.mark.slow
def test_the_notebooks_also_tell_their_story_of_runs_trained_afresh(tmp_path):
    """``--source fresh`` in an empty folder: agents of a few steps are trained, then shown."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    done = run_reproduce(tmp_path / "figures", tmp_path / "notebooks", "--source", "fresh", timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = saved_outputs(tmp_path / "figures")
    assert set(outputs) == {path.stem for path in (tmp_path / "notebooks").glob("0*.ipynb")}
    for notebook, saved in outputs.items():
        assert {output.kind for output in saved} >= {"figure", "table"}, notebook
        folders = {run.folder for output in saved for run in output.runs if run.folder}
        assert folders and all("/runs/" in folder for folder in folders), notebook


def test_check_makes_everything_again_and_finds_what_differs(project):
    done = run_reproduce(project / "figures", project / "notebooks", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of 2 outputs 2 are byte-identical, 0 equal in numbers, 0 differ, 0 are missing" in done.stdout
    assert not list((project / "figures").glob(".check-*"))


def test_outputs_are_compared_by_numbers_and_pixels(tmp_path):
    for folder, value, grey, frames in (("a", 0.1, 7, (1, 2)), ("b", 0.1 + 1e-9, 8, (1, 2)), ("c", 0.2, 90, (1, 99))):
        outputs = Outputs(tmp_path / folder, "01_x")
        outputs.table(pandas.DataFrame({"x": [value], "name": ["p"]}), "table", "T.")
        outputs.image(np.full((8, 8), grey, np.uint8), "image", "I.")
        outputs.video([np.full((16, 16, 3), f, np.uint8) for f in frames], "video", "V.")
        files = {f"01_x/{p.name}": {"sha256": hashlib.sha256(p.read_bytes()).hexdigest()}
                 for p in (tmp_path / folder / "01_x").iterdir() if p.suffix != ".json"}  # fmt: skip
        (tmp_path / folder / "manifest.json").write_text(json.dumps({"outputs": files}))
    near = {c.file: c.verdict for c in compare_outputs(tmp_path / "a", tmp_path / "b")}
    assert near == {"01_x/table.csv": "equal", "01_x/image.png": "equal", "01_x/video.mp4": "identical",
                    "01_x/video.poster.png": "identical"}  # fmt: skip
    far = {c.file: (c.verdict, c.detail) for c in compare_outputs(tmp_path / "a", tmp_path / "c")}
    assert far["01_x/table.csv"] == ("differs", "x, row 1: 0.1 became 0.2")
    assert far["01_x/image.png"] == ("differs", "100.00% of the pixels, by up to 83 of 255")
    assert far["01_x/video.mp4"][0] == "differs"


def wait_for(condition, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


def descendants(pid: int) -> list[int]:
    """Ids of the processes below ``pid``, children first."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for parent in found:
        found += [child for child, above in parents.items() if above == parent]
    return found[1:]


def start_slow(tmp_path: Path, *, ignored: tuple[int, ...] = ()) -> tuple[subprocess.Popen, int]:
    """Start reproducing a notebook that waits in its second cell; the process, and the kernel's id."""

    def prepare() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    pid_file = tmp_path / "pid"
    write = f"import os; open({str(pid_file)!r}, 'w').write(str(os.getpid()))"
    wait = f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.1)"
    write_notebook(tmp_path / "notebooks" / "01_slow.ipynb", "# Slow", write, wait)
    command = [sys.executable, "-m", "interp_lib.cli", "reproduce", "--figures", str(tmp_path / "figures")]
    command += ["--notebooks", str(tmp_path / "notebooks")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=prepare
    )
    wait_for(lambda: pid_file.exists() and pid_file.read_text())
    return process, int(pid_file.read_text())


@pytest.mark.parametrize(
    ("signals", "status"),
    [
        ([signal.SIGINT], 130),
        pytest.param([signal.SIGINT, signal.SIGINT], 130, marks=pytest.mark.slow),
        ([signal.SIGTERM], 143),
        pytest.param([signal.SIGHUP], 129, marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_everything_and_the_report_knows(tmp_path, signals, status):
    # SIGINT ignored, as behind a script's `&`: neither what comes from a terminal nor what we pass on depends on it.
    process, kernel = start_slow(tmp_path, ignored=() if signal.SIGINT in signals else (signal.SIGINT,))
    family = descendants(process.pid)
    for number in signals:
        os.killpg(process.pid, number)  # as a terminal does
        time.sleep(0.2)
    out, err = (text.decode() for text in process.communicate(timeout=90))
    assert process.returncode == status, out + err
    assert "Traceback" not in out + err
    wait_for(lambda: not any(map(alive, family)), seconds=5)
    assert outcome(tmp_path / "figures", "01_slow")["status"] == "stopped"


@pytest.mark.parametrize("killed", ["reproduce", "snakemake"])
def test_killed_and_started_again_it_completes_and_leaves_nothing_running(tmp_path, killed):
    process, kernel = start_slow(tmp_path)
    with pytest.raises(InterpError, match="another interp reproduce works in") as refused:
        would_run(tmp_path)
    assert len(str(refused.value).splitlines()) == 1
    if killed == "reproduce":
        second = run_reproduce(tmp_path / "figures", tmp_path / "notebooks")
        assert second.returncode == 2 and second.stderr == f"interp: {refused.value}\n"
    family = descendants(process.pid)
    assert len(family) >= 3 and kernel in family  # Snakemake, its job, the job's kernel
    os.kill(process.pid if killed == "reproduce" else family[0], signal.SIGKILL)
    process.communicate(timeout=60)
    wait_for(lambda: not any(map(alive, family)), seconds=5)
    (tmp_path / "go").touch()
    assert run_reproduce(tmp_path / "figures", tmp_path / "notebooks").returncode == 0
    assert outcome(tmp_path / "figures", "01_slow")["status"] == "done"
    assert would_run(tmp_path) == {}


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
    assert environment_parameters(declared, "ninja") == ["env"]
    assert environment_parameters(declared, "hopper") == ["task"]
    assert environment_parameters({"env": "pendulum"}, "hopper") == ["env"]
    assert environment_parameters({"seed": 0}, "hopper") == environment_parameters(declared, None) == []


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
    with Watcher("01_train", terminal, bars=True) as watcher:
        watcher.cell(CellProgress(3, 12, "Learning curves"))
        watcher.finish("done in 3.0 s")
    text = terminal.getvalue()
    assert "3/12 cells" in text and "Learning curves" in text
    assert text.endswith("01_train  done in 3.0 s\n")
