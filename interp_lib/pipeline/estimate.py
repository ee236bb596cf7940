"""How long what is pending will take: from what it took here before, else from what it took elsewhere, or a guess."""

from __future__ import annotations

from collections.abc import Sequence

from ..agents.registry import SEMANTIC_ALGORITHMS
from ..common.storage import read_json
from .engine import Pending
from .jobs import duration
from .plan import Plan, stamp

# Seconds to begin with, replaced by this folder's own times. Measured on a Xeon without bf16: quick on one core while
# the other trained, paper on two.
ROUGHLY = {
    "quick": {"01_train": 54, "02_evaluate_generalization": 29, "03_embed_and_cluster": 168,
              "04_prototype_visualization": 57, "states": 8, "explorer": 36},
    "paper": {"01_train": 60, "02_evaluate_generalization": 31, "03_embed_and_cluster": 875,
              "04_prototype_visualization": 160, "states": 40, "explorer": 48},
}  # fmt: skip
# Environment steps a second of one run on one thread of that CPU (SAC and ProtoSAC: on HalfCheetah).
RATES = {"ppo": 136.0, "sppo": 136.0, "sac": 54.0, "protosac": 72.0}
_UNKNOWN = 60.0  # a notebook of the user's own


def estimated_seconds(plan: Plan, job: Pending) -> float:
    """Seconds one job will take: what it took in this folder with this profile, else as written above."""
    profile = plan.settings.profile
    if job.rule == "train":
        run = plan.training(job.name)
        return run.steps / RATES[run.algorithm]
    if job.rule == "notebook":
        path = plan.figures / stamp("notebooks", job.name)
        if path.exists():
            before = read_json(path)
            if before["parameters"].get("profile") == profile:
                return float(before["seconds"])
        return ROUGHLY[profile].get(job.name, _UNKNOWN)
    return ROUGHLY[profile].get(job.rule, 2.0)


def render_estimate(plan: Plan, pending: Sequence[Pending], jobs: int) -> str:
    """One line: how many jobs, and about how long they take, ``jobs`` of them at a time."""
    seconds = [estimated_seconds(plan, job) for job in pending]
    stages = [max((s for s, j in zip(seconds, pending, strict=True) if j.rule == rule), default=0.0)
              for rule in ("train", "states", "notebook", "explorer", "report")]  # fmt: skip
    total = max(sum(stages), sum(seconds) / jobs)
    trained = [plan.training(job.name) for job in pending if job.rule == "train"]
    line = f"{len(pending)} jobs, about {duration(total)} with {jobs} at a time"
    if trained:
        steps = sum(run.steps for run in trained)
        slow = "CPU" if any(run.algorithm in SEMANTIC_ALGORITHMS for run in trained) else ""
        line += f", most of it training {steps:,} environment steps" + (
            f" (on a {slow}; a GPU is faster)" if slow else ""
        )
    return line
