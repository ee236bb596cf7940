"""How long what is pending will take: from what it took here before, else from what it took elsewhere, or a guess."""

from __future__ import annotations

from collections.abc import Sequence

from ..agents.registry import ALGORITHMS
from ..common.storage import read_json
from .engine import Pending
from .jobs import duration
from .notebooks import declared_needs
from .plan import Plan, stamp

# Measured on a Xeon without bf16: quick on one core while the other trained, paper on two. So are the seconds that
# notebooks state in their metadata.
ROUGHLY = {"quick": {"states": 8, "explorer": 36}, "paper": {"states": 40, "explorer": 48}}
_UNKNOWN = 60.0  # a notebook of the user's own


def estimated_seconds(plan: Plan, job: Pending) -> float:
    """Seconds one job will take: what it took in this folder with this profile, else as written above."""
    if job.rule == "train":
        run = plan.training(job.name)
        return run.timesteps / ALGORITHMS[run.algorithm].rate
    if job.rule == "notebook":
        path = plan.figures / stamp("notebooks", job.name)
        before = read_json(path) if path.exists() else {"parameters": {}}
        if before["parameters"].get("profile") == plan.profile:
            return float(before["seconds"])
        needs = declared_needs(plan.notebook(job.name)) or {}
        return needs.get("seconds", {}).get(plan.profile, _UNKNOWN)
    return ROUGHLY[plan.profile].get(job.rule, 2.0)


def render_estimate(plan: Plan, pending: Sequence[Pending], jobs: int) -> str:
    """One line: how many jobs, and about how long they take, ``jobs`` of them at a time."""
    seconds = [(job.rule, estimated_seconds(plan, job)) for job in pending]
    longest = dict(sorted(seconds, key=lambda job: job[1]))  # of each rule
    total = max(sum(longest.values()), sum(s for _, s in seconds) / jobs)
    line = f"{len(pending)} jobs, about {duration(total)} with {jobs} at a time"
    trained = [plan.training(job.name) for job in pending if job.rule == "train"]
    if trained:
        line += f", most of it training {sum(run.timesteps for run in trained):,} environment steps"
        if any(ALGORITHMS[run.algorithm].procgen for run in trained):
            line += " (on a CPU; a GPU is faster)"
    return line
