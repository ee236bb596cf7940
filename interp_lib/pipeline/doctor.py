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
from dataclasses import dataclass
from pathlib import Path

SUPPORTED_PYTHONS: tuple[tuple[int, int], ...] = ((3, 11), (3, 12))
# A paper-profile training run keeps its checkpoints and videos below this.
MINIMUM_FREE_GB = 2.0

_REINSTALL = "make install   (or: pip install -r requirements.lock)"
# Debian's and Ubuntu's names of what the wheels expect the system to have; .ci/run installs the same.
_EGL = "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri"
_QT = "apt-get install libgl1 libglib2.0-0"  # Procgen draws with Qt


@dataclass(frozen=True)
class Check:
    """One finding about this machine."""

    name: str
    ok: bool
    detail: str
    """What was found, one line."""
    fix: str = ""
    """The command or step that makes it ok; empty where nothing needs to be done."""
    required: bool = True
    """False for what only makes things faster: ``ok`` is then informational."""


def run_checks(folder: Path | str = ".") -> list[Check]:
    """Check this machine: every library really runs a step, in a process of its own.

    A broken OpenGL or a wheel for another CPU can abort the interpreter, so no native library is loaded here.
    The whole takes a few seconds.

    Args:
        folder: where runs and figures will be written; its disk is the one that is checked.

    Returns:
        The checks in the order in which problems should be solved. Nothing is raised: what fails is a finding.
    """
    probes: tuple[Callable[[], Check | list[Check]], ...] = (
        check_procgen,
        check_mujoco,
        check_box2d,
        check_video,
        check_torch,
    )
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        findings = [pool.submit(probe) for probe in probes]
        checks = [check_python(), check_disk(folder), check_surroundings()]
        for finding in findings:
            result = finding.result()
            checks.extend(result if isinstance(result, list) else [result])
    return [*checks, check_chromium()]


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


def check_procgen() -> Check:
    """Check that Procgen steps a game."""
    return _probe("Procgen", "procgen")


def check_mujoco() -> Check:
    """Check that MuJoCo steps and draws one frame without a display."""
    return _probe("MuJoCo", "mujoco")


def check_box2d() -> Check:
    """Check that Box2D steps and draws one frame of LunarLander."""
    return _probe("Box2D", "box2d")


def check_video() -> Check:
    """Check that PyAV encodes H.264."""
    return _probe("Video", "video")


def find_chromium() -> str | None:
    """Path of a Chromium or Chrome that the browser tests can drive; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


def check_chromium() -> Check:
    """Check for the browser that the tests of the cluster browser drive; readers use whichever they have."""
    found = find_chromium()
    detail = f"{Path(found).name} found" if found else "none found; the browser tests are skipped"
    return Check("Chromium", found is not None, detail, "apt-get install chromium", required=False)


def check_torch() -> list[Check]:
    """Check PyTorch, and tell what it can use here: CUDA and bfloat16 are faster, not needed."""
    found = _probe("PyTorch", "torch")
    if not found.ok:
        return [found]
    version, cuda_build, gpu, capability, bfloat16 = found.detail.split("|")
    checks = [Check("PyTorch", True, f"{version}, CPU capability {capability}")]
    if gpu:
        checks.append(Check("CUDA", True, f"{gpu} (CUDA {cuda_build})", required=False))
    elif shutil.which("nvidia-smi") and not cuda_build:
        fix = "make install TORCH=system with a Python that has a CUDA torch; make help tells more"
        checks.append(Check("CUDA", False, "there is a driver, but this torch is a CPU build", fix, required=False))
    else:
        checks.append(Check("CUDA", False, "no GPU found; training runs on the CPU", required=False))
    detail = "native on this CPU" if bfloat16 == "True" else "not native on this CPU; float32 is used"
    checks.append(Check("bfloat16", bfloat16 == "True", detail, required=False))
    return checks


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
    import gymnasium

    with gymnasium.make("HalfCheetah-v5", render_mode="rgb_array", width=64, height=64) as env:
        frame = _first_frame(env)
    return f"HalfCheetah steps and renders with {os.environ['MUJOCO_GL']}, frame {'x'.join(map(str, frame.shape))}"


def _step_box2d() -> str:
    import gymnasium

    with gymnasium.make("LunarLanderContinuous-v3", render_mode="rgb_array") as env:
        frame = _first_frame(env)
    return f"LunarLander steps and renders, frame {'x'.join(map(str, frame.shape))}"


def _first_frame(env):
    env.reset(seed=0)
    env.action_space.seed(0)
    env.step(env.action_space.sample())
    frame = env.render()
    if frame is None or frame.min() == frame.max():
        raise RuntimeError("the rendered frame is empty")
    return frame


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


_PROBES: dict[str, Callable[[], str]] = {
    "procgen": _step_procgen,
    "mujoco": _step_mujoco,
    "box2d": _step_box2d,
    "video": _encode_video,
    "torch": _describe_torch,
}


def _probe(name: str, probe: str) -> Check:
    """Run one probe in a child process and turn its last words into a finding."""
    package_folder = str(Path(__file__).resolve().parents[2])
    environment = {"MUJOCO_GL": "egl", "SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", **os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package_folder, os.environ.get("PYTHONPATH")]))
    # MuJoCo leaves a MUJOCO_LOG.TXT where it runs.
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "interp_lib.pipeline.doctor", probe]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=120, cwd=scratch, env=environment
            )
        except subprocess.TimeoutExpired:
            return Check(name, False, "no answer within 120 s", "try again when the machine is idle")
    if done.returncode == 0 and done.stdout.strip():
        return Check(name, True, done.stdout.strip().splitlines()[-1])
    return Check(name, False, _reason(done), _fix(probe, done.stderr))


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


def _fix(probe: str, stderr: str) -> str:
    """Return the step that repairs what ``stderr`` tells."""
    if probe == "mujoco" and "ModuleNotFoundError" not in stderr:
        chosen = os.environ.get("MUJOCO_GL", "egl").lower()
        return _EGL if chosen == "egl" else "export MUJOCO_GL=egl"
    if probe == "procgen" and "cannot load library" in stderr:
        return _QT
    return _REINSTALL


if __name__ == "__main__":
    print(_PROBES[sys.argv[1]]())
