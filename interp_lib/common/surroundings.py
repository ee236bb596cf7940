"""What a command finds around it: standard streams, home folder, display, environment variables of the libraries.

None of it may break a command or change a result. :func:`settle` is called where a process begins, before any of the
libraries that read these things is imported, and what it changes reaches the processes begun later.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import re
import select
import stat
import sys
import tempfile
from pathlib import Path
from typing import TextIO

# Folders that libraries write to as they are imported or used.
_FOLDERS = ("MPLCONFIGDIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR",
            "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")  # fmt: skip
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# What would have others' code or settings in our pictures; a notebook's kernel chooses its own backend.
_FOREIGN = ("MPLBACKEND", "MATPLOTLIBRC", "PYTHONSTARTUP", "SNAKEMAKE_PROFILE")

FOUND: list[str] = []  # what was not as it should be and what is done about it, a line each, for `interp doctor`


def settle() -> None:
    """Make this process independent of its surroundings."""
    _open_streams()
    FOUND.extend([*_home(), *_variables()])


def _open_streams() -> None:
    for descriptor in range(3):  # or the next file that is opened becomes standard output, and gets what is printed
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what an encoding lacks is shown escaped, not refused
            stream.reconfigure(errors="backslashreplace")


def _home() -> list[str]:
    """A home folder of our own where there is none to write to; user names, where the system knows none."""
    found = []
    try:
        known = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        known = ""
        if not {"LOGNAME", "USER", "LNAME", "USERNAME"} & os.environ.keys():
            os.environ["USER"] = f"uid{os.getuid()}"  # PyTorch and others ask for one
            found.append(f"user id {os.getuid()} has no name")
    home = os.environ.get("HOME") or known
    if not home or not _usable(Path(home)):
        os.environ["HOME"] = str(_own_folder())
        found.append(f"the home folder {home or '(none)'} can't be written to: {os.environ['HOME']} is used")
        # What is read from it is still read.
        for name, place in (("HF_HOME", ".cache/huggingface"), ("GIT_CONFIG_GLOBAL", ".gitconfig")):
            if home and os.access(Path(home, place), os.R_OK):
                os.environ.setdefault(name, str(Path(home, place)))
    return found


def _own_folder() -> Path:
    """A folder that is ours alone, the same each time: what matplotlib finds out about fonts takes it seconds."""
    place = Path(tempfile.gettempdir()) / f"interp-home-{os.getuid()}"
    with contextlib.suppress(OSError):
        place.mkdir(0o700, exist_ok=True)
        found = place.lstat()  # temporary folders are everybody's: it may be somebody else's, or a link
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077:
            return place
    return Path(tempfile.mkdtemp(prefix="interp-home-"))


def _usable(folder: Path) -> bool:
    """Whether files can be made in a folder: tried, because permissions say little about root and other systems."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _variables() -> list[str]:
    """Take away the variables that libraries would stumble over, or find others' code and settings by."""
    found = []

    def forget(name: str, why: str) -> None:
        found.append(f"{name}={os.environ.pop(name)} {why}")

    number = re.compile(r"[1-9]\d{0,3}(,[1-9]\d{0,3})*")
    for name in filter(os.environ.get, _FOLDERS):
        with contextlib.suppress(OSError):  # as the library would
            Path(os.environ[name]).mkdir(0o700, parents=True, exist_ok=True)
        if not _usable(Path(os.environ[name])):
            forget(name, "can't be written to and is ignored")
    for name in _THREADS:
        if not number.fullmatch(os.environ.get(name, "1").strip()):
            forget(name, "is no number of threads and is ignored")
    for name in filter(os.environ.get, _FOREIGN):
        forget(name, "is ignored")
    displays = [name for name in ("DISPLAY", "WAYLAND_DISPLAY") if name in os.environ]
    if displays and not display_opens():  # OpenGL and SDL would try it, and fail with pages of complaints
        for name in displays:
            forget(name, "does not open: pictures are drawn without it")
    return found


def display_opens() -> bool:
    """Whether there is a display that windows can be opened on."""
    wayland = os.environ.get("WAYLAND_DISPLAY")
    if wayland and os.path.exists(os.path.join(os.environ.get("XDG_RUNTIME_DIR", "/none"), wayland)):
        return True
    if not os.environ.get("DISPLAY"):
        return False
    if not sys.platform.startswith("linux"):
        return True  # nothing is known to fail
    with contextlib.suppress(OSError, AttributeError):  # without its library nobody else can open the display either
        x11 = ctypes.CDLL("libX11.so.6")
        x11.XOpenDisplay.restype = ctypes.c_void_p
        display = x11.XOpenDisplay(None)
        if display:
            x11.XCloseDisplay(ctypes.c_void_p(display))
            return True
    return False


def forget_output(stream: TextIO) -> bool:
    """Whether ``stream`` can't be written any more; what remains of it then goes nowhere."""
    try:
        stream.flush()
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        if not any(event & select.POLLERR for _, event in poll.poll(0)):  # nobody is left to read a pipe
            return False
    except OSError:
        pass
    except (AttributeError, ValueError):  # there is none, or it is no file
        return False
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    return True


def out_of_memory(error: BaseException) -> bool:
    """Whether that is what ``error`` says; libraries have many words for it."""
    words = r"failed to map segment|[Cc]annot allocate memory|can't allocate memory|bad_alloc|can't start new thread"
    return isinstance(error, MemoryError) or bool(re.search(words, str(error)))
