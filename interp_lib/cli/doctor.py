"""``interp doctor``."""

from __future__ import annotations

import argparse
from typing import Any

from .parts import add_command


def add_doctor(commands: Any) -> None:
    """Add ``interp doctor``."""
    add_command(commands, "doctor", "check Procgen, MuJoCo, Box2D, video, CUDA and disk", "interp doctor", _run_doctor)


def _run_doctor(args: argparse.Namespace) -> int:
    from ..pipeline.doctor import healthy, render_report, run_checks

    checks = run_checks()
    print(render_report(checks))
    return 0 if healthy(checks) else 1
