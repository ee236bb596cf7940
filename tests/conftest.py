"""Fixtures that several test modules share: tiny agents, really trained (on FruitBot, whose episodes are short)."""

import importlib
import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import pytest

ROOT = Path(__file__).resolve().parents[1]  # of the repository

# In the background of a script Ctrl-C is ignored, and what is started from there would ignore it as well.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Lazy:
    """A module that is imported when it is first used: collecting tests shouldn't wait for nbformat's second."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, attribute):
        if attribute.startswith(("_", "pytest")):  # collecting asks every object whether it is a test or a fixture
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)


@pytest.fixture(autouse=True)
def _close_figures():
    """Figures stay open until somebody closes them, and hundreds would take memory."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


TINY = {"num_envs": 8, "num_steps": 16, "num_minibatches": 2, "precision": "fp32"}


@pytest.fixture(scope="session")
def tiny_sppo(tmp_path_factory):
    """A run folder of an SPPO agent trained for three small updates."""
    from interp_lib import SPPO

    run_dir = tmp_path_factory.mktemp("runs") / "sppo-fruitbot-s0"
    SPPO("fruitbot", seed=0, skill_interval=1, device="cpu", **TINY).learn(3 * 128, run_dir=run_dir, progress=False)
    return run_dir


@pytest.fixture(scope="session")
def tiny_ppo(tmp_path_factory):
    """A run folder of a PPO agent trained for one small update."""
    from interp_lib import PPO

    run_dir = tmp_path_factory.mktemp("runs") / "ppo-fruitbot-s0"
    PPO("fruitbot", seed=0, device="cpu", **TINY).learn(128, run_dir=run_dir, progress=False)
    return run_dir
