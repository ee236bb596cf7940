"""Write README.md's tables of released agents from their cards' numbers; run it after a release.

The tables stand between `<!-- agents -->` and `<!-- /agents -->`; a test compares them with the runs.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from interp_lib.agents.registry import ALGORITHMS
from interp_lib.envs.names import CONTINUOUS_TASKS, env_title
from interp_lib.runs.folder import Run, find_runs

ROOT = Path(__file__).resolve().parent.parent
PLACE = re.compile(r"(?<=<!-- agents -->\n).*?(?=<!-- /agents -->)", re.DOTALL)


def tables(runs: Sequence[Run]) -> str:
    """The two tables: PPO and SPPO on Procgen, SAC and ProtoSAC on the continuous tasks.

    Variants, such as those on a limited number of levels, are another experiment, not another seed.
    """
    runs = [run for run in runs if not run.variant]
    games = sorted({run.env for run in runs if run.env not in CONTINUOUS_TASKS})
    tasks = [task for task in CONTINUOUS_TASKS if any(run.env == task for run in runs)]
    titles = {**{g: env_title(g) for g in games}, **{t: i.partition("-v")[0] for t, i in CONTINUOUS_TASKS.items()}}
    blocks = []
    for kind, names, pair, side in (
        ("game", games, ("ppo", "sppo"), "unseen"),
        ("task", tasks, ("sac", "protosac"), "eval"),
    ):
        first, second = ("PPO", "SPPO") if kind == "game" else ("SAC", "ProtoSAC")
        rows = [f"| {kind} | steps | {first} | {second} | random | n |", "|---|---:|---:|---:|---:|---:|"]
        for name in names:
            of = {a: [run for run in runs if (run.env, run.algorithm) == (name, a)] for a in pair}
            every = [run for seeds in of.values() for run in seeds]
            steps = " / ".join(dict.fromkeys(f"{run.timesteps:,}" for run in every))
            share = max(run.timesteps for run in every) / ALGORITHMS[pair[0]].full_budget(name)
            budget = "" if share >= 1 else f" ({share:.0%})"
            random = _number(every[0].results["random"]["mean"])
            n = " / ".join(dict.fromkeys(str(run.results[side]["episodes"]) for run in every))
            cells = [_returns(of[a], side) for a in pair]
            rows.append(f"| {titles[name]} | {steps}{budget} | {' | '.join(cells)} | {random} | {n} |")
        blocks.append("\n".join(rows))
    return "\n\n".join(blocks) + "\n"


def _returns(seeds: Sequence[Run], side: str) -> str:
    measured = [run.results[side] for run in seeds]
    if len(measured) == 1:
        (only,) = measured
        return f"{_number(only['mean'])} [{_number(only['low'])}, {_number(only['high'])}]"
    return " · ".join(_number(of["mean"]) for of in measured)


def _number(value: float) -> str:
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}").replace("-", "−")


def main() -> None:
    """Replace the tables in README.md."""
    readme = ROOT / "README.md"
    readme.write_text(PLACE.sub(tables(find_runs(ROOT / "checkpoints")), readme.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
