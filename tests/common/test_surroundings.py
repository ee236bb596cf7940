"""What surrounds a command: real processes with full disks, closed pipes, no home, dead displays, odd names."""

import ast
import os
import resource
import shutil
import subprocess
import sys

import h5py
import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

from interp_lib.cli.lab import write_notebook, write_prototype_notebook
from interp_lib.common.errors import InterpError
from interp_lib.common.storage import atomic_write, read_json, write_text
from interp_lib.pipeline.campaign import read_campaign
from interp_lib.pipeline.notebooks import numbered_notebooks
from interp_lib.pipeline.workbench import Target
from interp_lib.runs.folder import find_runs, read_run

RUN = ROOT / "checkpoints" / "sppo-ninja-s2021"
PENDULUM = ROOT / "checkpoints" / "protosac-pendulum-s100"


def interp(*arguments, shell="", before=None, env=None, **more):
    """The real command; ``shell`` follows it on a line of bash."""
    command = [sys.executable, "-m", "interp_lib.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    environment = {name: value for name, value in environment.items() if value is not None}
    return subprocess.run(
        ["bash", "-c", f'"$@" {shell}; exit ${{PIPESTATUS[0]}}', "bash", *command],
        capture_output=True, text=True, errors="replace", timeout=240, preexec_fn=before, env=environment, **more,
    )  # fmt: skip


def one_line(done, status, message=""):
    assert done.returncode == status, done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("interp: "), done.stderr
    assert message in done.stderr


# -- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zz$(touch hacked)", "sppo-ninja-s2021 (copy)", "a;b", "new\nline", "{x}"])
def test_a_folder_whose_name_is_none_of_a_run_is_passed_over(tmp_path, name, capsys):
    shutil.copytree(RUN, tmp_path / RUN.name)
    shutil.copytree(RUN, tmp_path / name)
    assert [run.name for run in find_runs(tmp_path)] == [RUN.name]
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "Rename the folder" in said


def test_a_name_reaches_the_shell_as_it_is(tmp_path):
    """Snakemake really runs the rules, in the folder where a name that is executed would leave its file."""
    from interp_lib.pipeline.engine import SNAKEFILE

    rules = SNAKEFILE.read_text(encoding="utf-8")
    for name in ("run", "notebook"):
        assert f"{{wildcards.{name}}}" not in rules  # each is quoted
    step = next(line for line in rules.splitlines() if line.startswith("STEP = "))
    (tmp_path / "Snakefile").write_text(
        f"import shlex, sys\nsys.executable = {str(tmp_path / 'a {b}' / 'echo')!r}\n{step}\n"
        'rule notebook:\n    output: "{notebook}.done"\n    shell: STEP + " x {wildcards.notebook:q} > {output:q}"\n',
        encoding="utf-8",
    )
    (tmp_path / "a {b}").mkdir()
    shutil.copy("/bin/echo", tmp_path / "a {b}" / "echo")
    targets = ["zz$(touch hacked).done", "sppo (copy).done"]
    command = [sys.executable, "-m", "snakemake", "--quiet", "all", "--cores", "1", "--", *targets]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "hacked").exists()
    for target in targets:
        words = (tmp_path / target).read_text().strip().split(" ", 4)
        assert words[:2] == ["-m", "interp_lib.pipeline.jobs"] and words[4] == target.removesuffix(".done")


def test_notebooks_that_snakemake_cannot_name_are_left_out(tmp_path):
    for name in ("01_train", "02_my copy (1)", "03_{x}", "04_$(touch hacked)"):
        (tmp_path / f"{name}.ipynb").touch()
    assert [path.stem for path in numbered_notebooks(tmp_path)] == ["01_train", "02_my copy (1)"]


def test_a_browser_notebook_holds_any_path(tmp_path):
    folder = tmp_path / 'it\'s "q" \\n {x}'
    folder.mkdir()
    for notebook in (
        write_notebook(folder / "sppo-ninja-s0", folder / "states.h5", tmp_path / "a.ipynb"),
        write_prototype_notebook(folder / "sac-pendulum-s100", "pendulum", tmp_path / "b.ipynb"),
    ):
        (cell,) = [c for c in read_json(notebook)["cells"] if c["cell_type"] == "code"]
        texts = [n.value for n in ast.walk(ast.parse("".join(cell["source"]))) if isinstance(n, ast.Constant)]
        assert any(str(text).startswith(f"{folder.name}/s") for text in texts)


def test_a_run_is_called_the_same_from_within(monkeypatch):
    monkeypatch.chdir(RUN)
    assert {read_run(spelled).name for spelled in (".", f"../{RUN.name}/", RUN)} == {RUN.name}


# -- outputs, disks, memory ---------------------------------------------------------------------------------------


def test_an_output_that_nobody_reads_or_that_is_full():
    arguments = ("checkpoints", "list", "--folder", ROOT / "checkpoints")
    one_line(interp(*arguments, shell=">/dev/full"), 2, "No space left on device")
    for shell in ("| true", "2>&1 | true", ">&-", ">&- 2>&-"):
        done = interp(*arguments, shell=shell)
        assert done.returncode == 0 and done.stderr == "", (shell, done.stderr)
    done = interp("checkpoints", "list", "--folder", "nowhere", shell="2>/dev/full")
    assert done.returncode == 2 and done.stderr == ""


def test_too_little_memory_is_one_line():
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (600_000_000, 600_000_000))

    one_line(interp("evaluate", PENDULUM, "--episodes", 1, before=limit), 2, "out of memory")


def limited(room):
    """The same for a program as a full disk: a write fails in the middle of a file."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))


@pytest.mark.parametrize("room", [0, 300_000])
def test_no_room_for_states_is_one_line_and_no_crash(tmp_path, room):
    done = interp("embed", RUN, "--steps", "12", "--out", tmp_path, before=limited(room))
    lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if not line.startswith("collect")]
    assert done.returncode == 2 and "states.h5: File too large. Free space" in lines[-1], done.stderr
    assert "Traceback" not in done.stderr and not list((tmp_path / RUN.name).iterdir())


def test_no_room_for_a_snapshot_or_a_video_is_one_line(tmp_path, monkeypatch):
    one_line(
        interp("checkpoints", "release", PENDULUM, "--folder", tmp_path, before=limited(1000)), 2, "File too large"
    )
    script = (
        "import numpy as np, sys\nfrom interp_lib.common.videos import write_mp4\n"
        "from interp_lib.common.errors import InterpError\n"
        "frames = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), np.uint8)\n"
        "try:\n    write_mp4(sys.argv[1], [frames], 8)\nexcept InterpError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "v.mp4"], preexec_fn=limited(5000), capture_output=True, text=True
    )
    assert "File too large. Free space" in done.stdout and len(done.stdout.splitlines()) == 1, done.stderr
    assert not list(tmp_path.glob("*v.mp4*"))


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_are_for_those_the_umask_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a", "text")
        with atomic_write(tmp_path / "b.h5") as raw, h5py.File(raw, "w") as file:
            file["x"] = 1
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}


# -- what files hold ----------------------------------------------------------------------------------------------


def test_json_may_begin_with_a_mark_and_holds_numbers(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes('\ufeff{"a": "é"}'.encode())
    assert read_json(path) == {"a": "é"}
    for text in ('{"a": NaN}', '{"a": -Infinity}', '{"a": 1, "a": 2}', "[" * 100_000, '{"a":' * 100_000, "\xe9", ""):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(InterpError, match="not valid JSON") as caught:
            read_json(path)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "data",
    [
        "\ufeffalgorithm,env,seed,timesteps\r\nsac,pendulum,3,100\r\n".encode(),
        "algorithm,env,seed,timesteps\n# für später\nsac,pendulum,3,100\n".encode("latin-1"),
        b'"algorithm","env","seed","timesteps"\n"sac","pendulum","3","100"\n',
    ],
)
def test_a_campaign_as_spreadsheets_write_it(tmp_path, data):
    (tmp_path / "c.csv").write_bytes(data)
    assert read_campaign(tmp_path / "c.csv") == [Target("sac", "pendulum", 3, 100)]


def test_every_file_is_opened_with_its_encoding():
    """Or what is written on one machine can't be read on another."""
    missing = []
    for path in (ROOT / "interp_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            owner = getattr(getattr(node.func, "value", None), "id", "")
            texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
            binary = any(isinstance(text, str) and "b" in text and len(text) < 4 for text in texts)
            method = isinstance(node.func, ast.Attribute)
            reads = name in ("read_text", "write_text") and method
            opens = name == "open" and owner not in ("Image", "av", "os", "archive") and not binary
            if (reads or opens) and not any(k.arg == "encoding" for k in node.keywords):
                missing.append(f"{path.name}:{node.lineno}")
    assert missing == []


# -- environment --------------------------------------------------------------------------------------------------

AWAY = {
    "no home": {"HOME": "/proc/none"},
    "folders": {name: "/proc/none" for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "IPYTHONDIR")},
    "libraries": {"MPLBACKEND": "TkAgg", "MATPLOTLIBRC": "/etc/hostname", "OMP_NUM_THREADS": "many",
                  "PYTHONHASHSEED": "7", "HDF5_USE_FILE_LOCKING": "TRUE"},
    "warnings": {"PYTHONWARNINGS": "error::UserWarning", "JUPYTER_PATH": "/proc/none", "IPYTHON_DIR": "/proc/none"},
    "display": {"DISPLAY": ":99", "WAYLAND_DISPLAY": "none"},
    "locale": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"},
}  # fmt: skip


def test_an_encoding_that_lacks_a_letter_gets_it_escaped():
    for arguments in (("checkpoints", "list", "--folder", ROOT / "checkpoints"), ("train", "sppo", "--help")):
        done = interp(*arguments, env=AWAY["locale"])
        assert done.returncode == 0 and done.stderr == "", done.stderr


def test_doctor_says_what_is_not_as_it_should_be():
    done = interp("doctor", env=AWAY["no home"] | AWAY["display"] | {"OMP_NUM_THREADS": "many"})
    for found in ("home folder /proc/none", "DISPLAY=:99 does not open", "OMP_NUM_THREADS=many"):
        assert found in done.stdout


def test_notebooks_show_their_figures_whatever_backend_is_set(monkeypatch):
    """Each notebook's own magics, in a kernel that starts without inline as a shell's MPLBACKEND may ask."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    book = nbformat.v4.new_notebook()
    for path in numbered_notebooks(ROOT / "notebooks"):
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        magics = [line for cell in cells[:2] for line in cell.source.splitlines() if line.startswith("%")]
        for source in ("%matplotlib agg", "\n".join(magics), "import matplotlib.pyplot as plt\nplt.plot([1]);"):
            book.cells.append(nbformat.v4.new_code_cell(source))
    NotebookClient(book, kernel_name="python3").execute()
    drawn = [["image/png" in output.get("data", {}) for output in cell.outputs] for cell in book.cells[2::3]]
    assert drawn == [[True]] * 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody without a name")
def test_a_user_without_a_name(tmp_path):
    tmp_path.chmod(0o777)
    shutil.copytree(PENDULUM, tmp_path / PENDULUM.name)
    subprocess.run(["chmod", "-R", "a+rX", tmp_path.parent.parent, tmp_path], check=True)

    def become():
        os.setgid(54321)
        os.setuid(54321)

    try:
        subprocess.run([sys.executable, "-c", "import torch"], preexec_fn=become, check=True, cwd="/")
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("this Python may not be read by others")
    done = interp("evaluate", tmp_path / PENDULUM.name, "--episodes", "1", before=become, cwd=tmp_path,
                  env={"HOME": None, "USER": None, "LOGNAME": None})  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


def outputs_of(folder, *arguments, env):
    """What a command leaves in ``folder``, but the notes that say when and where it was made."""
    done = interp(*arguments, "--out", folder, cwd=folder, env={"OMP_NUM_THREADS": None, **env})
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert not any(word in done.stderr for word in ("Warning", "GLFW", "X11", "MESA", "ALSA")), done.stderr
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".json" and path.name not in ("matplotlibrc", "states.h5")
    }


@pytest.mark.slow
@pytest.mark.parametrize("command", [("prototypes", PENDULUM, "--episodes", 1), ("embed", RUN, "--steps", 8)])
def test_what_surrounds_a_command_changes_no_byte_of_what_it_makes(command, tmp_path):
    for name in ("here", "away"):
        (tmp_path / name).mkdir()
    undisturbed = outputs_of(tmp_path / "here", *command, env={})
    (tmp_path / "away" / "matplotlibrc").write_text("font.size: 30\naxes.facecolor: red\n")
    env = {name: value for variables in AWAY.values() for name, value in variables.items()}
    disturbed = outputs_of(tmp_path / "away", *command, env=env)
    assert len(undisturbed) > 3 and disturbed.keys() == undisturbed.keys()
    assert [name for name, data in disturbed.items() if data != undisturbed[name]] == []
