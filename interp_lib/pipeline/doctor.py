"""Can this machine run everything? One check per thing that has broken installations, with the exact fix."""

from __future__ import annotations

import concurrent.futures
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SUPPORTED_PYTHONS: tuple[tuple[int, int], ...] = ((3, 11), (3, 12))
# A paper-profile training run keeps its checkpoints and videos below this.
MINIMUM_FREE_GB = 2.0

_REINSTALL = "make install   (or: pip install -r requirements.lock)"
# Debian's and Ubuntu's names of what the wheels expect the system to have; .ci/run installs the same.
_EGL = "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri"
_QT = "apt-get install libgl1 libglib2.0-0"  # Procgen draws with Qt


class Check(NamedTuple):
    """One finding about this machine: what was found, and the command or step that makes it ok, where one is needed.

    What is not ``required`` only makes things faster: ``ok`` is then informational.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""
    required: bool = True


def run_checks(folder: Path | str = ".") -> list[Check]:
    """Check this machine: every library really runs a step, in a process of its own.

    A broken OpenGL or a wheel for another CPU can abort the interpreter, so no native library is loaded here.
    The whole takes a few seconds.

    Args:
        folder: where runs and figures will be written; its disk is the one that is checked.

    Returns:
        The checks in the order in which problems should be solved. Nothing is raised: what fails is a finding.
    """
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        findings = pool.map(check_library, PROBES)
        checks = [check_python(), check_disk(folder), check_surroundings(), *findings]
    return [*checks[:-1], *_what_torch_can_use(checks[-1]), check_chromium()]


def healthy(checks: Sequence[Check]) -> bool:
    """Return whether everything required is ok."""
    return all(check.ok for check in checks if check.required)


def render_report(checks: Sequence[Check]) -> str:
    """Return the checks as aligned text, each failure followed by its fix, and a closing line with the verdict."""
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        mark = "ok  " if check.ok else "FAIL" if check.required else "note"
        lines.append(f"{mark}  {check.name:<{width}}  {check.detail}")
        if check.fix and not check.ok:
            lines.append(f"      {'':<{width}}  -> {check.fix}")
    failed = [check.name for check in checks if check.required and not check.ok]
    lines.append("")
    lines.append(f"{len(failed)} to fix: {', '.join(failed)}." if failed else "Everything needed works here.")
    return "\n".join(lines)


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Check that this Python is one the pinned packages have wheels for."""
    works = " or ".join(".".join(map(str, pair)) for pair in SUPPORTED_PYTHONS)
    return Check(
        "Python",
        tuple(version[:2]) in SUPPORTED_PYTHONS,
        ".".join(map(str, version)) + f" on {platform.system()} {platform.machine()}",
        f"install Python {works}, then: make install PYTHON=/path/to/python3.11",
    )


def check_disk(folder: Path | str = ".") -> Check:
    """Check the free space where runs and figures are written."""
    free = shutil.disk_usage(folder).free / 1e9
    return Check(
        "Disk",
        free >= MINIMUM_FREE_GB,
        f"{free:.1f} GB free",
        f"free at least {MINIMUM_FREE_GB:g} GB here, or work on another disk (old trainings lie in runs/)",
    )


def check_surroundings() -> Check:
    """Check environment variables, home folder and display; what is not as it should be, every command works round."""
    from ..common.surroundings import FOUND

    return Check("Surroundings", not FOUND, "; ".join(FOUND) or "home, display and variables are fine", required=False)


def find_chromium() -> str | None:
    """Path of a Chromium or Chrome that the browser tests can drive; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


def check_chromium() -> Check:
    """Check for the browser that the tests of the cluster browser drive; readers use whichever they have."""
    found = find_chromium()
    detail = f"{Path(found).name} found" if found else "none found; the browser tests are skipped"
    return Check("Chromium", found is not None, detail, "apt-get install chromium", required=False)


def _what_torch_can_use(torch: Check) -> list[Check]:
    """PyTorch's own check, and what it can use here: CUDA and bfloat16 are faster, not needed."""
    if not torch.ok:
        return [torch]
    version, cuda_build, gpu, capability, bfloat16 = torch.detail.split("|")
    fix = ""
    if gpu:
        cuda = f"{gpu} (CUDA {cuda_build})"
    elif shutil.which("nvidia-smi") and not cuda_build:
        cuda = "there is a driver, but this torch is a CPU build"
        fix = "make install TORCH=system with a Python that has a CUDA torch; make help tells more"
    else:
        cuda = "no GPU found; training runs on the CPU"
    native = bfloat16 == "True"
    return [
        torch._replace(detail=f"{version}, CPU capability {capability}"),
        Check("CUDA", bool(gpu), cuda, fix, required=False),
        Check("bfloat16", native, _BFLOAT16[native], required=False),
    ]


_BFLOAT16 = {True: "native on this CPU", False: "not native on this CPU; float32 is used"}

# What follows runs in a child: `python -m interp_lib.pipeline.doctor NAME` prints what a check found, or raises.


def _step_procgen() -> str:
    import numpy as np
    from procgen import ProcgenGym3Env

    env = ProcgenGym3Env(num=2, env_name="coinrun", num_levels=1, start_level=0, rand_seed=0)
    frames = []
    for _ in range(10):
        env.act(np.full(2, 7, dtype=np.int32))  # 7: walk right, so that the picture changes
        frames.append(env.observe()[1]["rgb"])
    if frames[0].shape != (2, 64, 64, 3) or np.array_equal(frames[0], frames[-1]):
        raise RuntimeError("CoinRun steps, but its frames don't change")
    return f"CoinRun steps, frames {'x'.join(map(str, frames[0].shape[1:]))}"


def _step_mujoco() -> str:
    frame = _first_frame("HalfCheetah-v5", width=64, height=64)
    return f"HalfCheetah steps and renders with {os.environ['MUJOCO_GL']}, frame {frame}"


def _step_box2d() -> str:
    return f"LunarLander steps and renders, frame {_first_frame('LunarLanderContinuous-v3')}"


def _first_frame(task: str, **size: Any) -> str:
    import gymnasium

    with gymnasium.make(task, render_mode="rgb_array", **size) as env:
        env.reset(seed=0)
        env.action_space.seed(0)
        env.step(env.action_space.sample())
        frame: Any = env.render()
    if frame is None or frame.min() == frame.max():
        raise RuntimeError("the rendered frame is empty")
    return "x".join(map(str, frame.shape))


def _encode_video() -> str:
    import io

    import av
    import numpy as np

    frames = [np.full((64, 64, 3), 25 * i, dtype=np.uint8) for i in range(8)]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as written:
        stream = written.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for frame in frames:
            written.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        written.mux(stream.encode())
    file.seek(0)
    with av.open(file, "r") as container:
        decoded = sum(1 for _ in container.decode(video=0))
    if decoded != len(frames):
        raise RuntimeError(f"wrote {len(frames)} H.264 frames and read {decoded}")
    return f"PyAV {av.__version__} writes H.264 ({decoded} frames, {file.getbuffer().nbytes} bytes)"


def _describe_torch() -> str:
    import torch

    torch.ones(2, requires_grad=True).sum().backward()
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    # The mkldnn flag is also true where bfloat16 is emulated; the CPU flags tell whether it is worth using.
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    native = bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags))
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{torch.__version__}|{torch.version.cuda or ''}|{gpu}|{capability}|{native}"


# Procgen, MuJoCo and Box2D step, the latter two also draw without a display; PyAV encodes H.264.
PROBES: dict[str, Callable[[], str]] = {
    "Procgen": _step_procgen,
    "MuJoCo": _step_mujoco,
    "Box2D": _step_box2d,
    "Video": _encode_video,
    "PyTorch": _describe_torch,
}


def check_library(name: str) -> Check:
    """Run one of `PROBES` in a child process and turn its last words into a finding."""
    package_folder = str(Path(__file__).resolve().parents[2])
    environment = {"MUJOCO_GL": "egl", "SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", **os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package_folder, os.environ.get("PYTHONPATH")]))
    # MuJoCo leaves a MUJOCO_LOG.TXT where it runs.
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "interp_lib.pipeline.doctor", name]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=120, cwd=scratch, env=environment
            )
        except subprocess.TimeoutExpired:
            return Check(name, False, "no answer within 120 s", "try again when the machine is idle")
    if done.returncode == 0 and done.stdout.strip():
        return Check(name, True, done.stdout.strip().splitlines()[-1])
    return Check(name, False, _reason(done), _fix(name, done.stderr))


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"the process died of signal {-done.returncode}"
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    missing = re.search(r"lib[\w+.-]+\.so[\d.]*: cannot open shared object file", done.stderr)
    if missing:
        return missing[0]
    if "object has no attribute 'egl" in done.stderr:
        return "no libEGL found to render with"  # what PyOpenGL's AttributeError on None means
    # The first exception of a chain is the cause; what destructors complain about afterwards comes last.
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Fatal)\b", line)]
    return (errors or lines or [f"exit status {done.returncode}"])[0][:200]


def _fix(name: str, stderr: str) -> str:
    """Return the step that repairs what ``stderr`` tells."""
    if name == "MuJoCo" and "ModuleNotFoundError" not in stderr:
        chosen = os.environ.get("MUJOCO_GL", "egl").lower()
        return _EGL if chosen == "egl" else "export MUJOCO_GL=egl"
    if name == "Procgen" and "cannot load library" in stderr:
        return _QT
    return _REINSTALL


if __name__ == "__main__":
    print(PROBES[sys.argv[1]]())
