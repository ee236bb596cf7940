"""How good an agent is: returns over whole episodes, on training levels and unseen ones, with intervals."""

from __future__ import annotations

from typing import Any

from ..agents.returns import Returns, evaluate_continuous, evaluate_procgen
from ..common.statistics import bootstrap_mean
from ..envs.names import check_seed
from ..runs.folder import Run, load_agent


def random_returns(run: Run, episodes: int) -> Any:
    """Returns of a uniformly random policy where the run is measured (Procgen: on unseen levels)."""
    if not run.record.procgen:
        return evaluate_continuous(None, run.env, episodes)
    from ..agents.sppo.play import UniformAgent

    config = run.record.settings_class.from_dict(run.config["hyperparameters"])
    return evaluate_procgen(UniformAgent(config), episodes)


def default_episodes(run: Run) -> int:
    """Episodes a side that give a useful interval in about a minute."""
    return 500 if run.record.procgen else 50


def evaluate_run(
    run: Run, episodes: int, *, deterministic: bool | None = None, seed: int = 0
) -> dict[str, tuple[Returns, str]]:
    """Evaluate a run the way its paper does: Procgen agents sample, on both sides; continuous ones take their mean.

    Returns:
        by side (``train`` and ``unseen``, or ``eval``) the returns and how actions were chosen.
    """
    check_seed(seed)
    agent = load_agent(run.path)
    procgen = run.record.procgen
    fixed = (not procgen) if deterministic is None else deterministic
    if procgen:
        how = "most probable" if fixed else "sampled"
        return {
            side: (evaluate_procgen(agent, episodes, side=side, deterministic=fixed, seed=seed), how)
            for side in ("train", "unseen")
        }
    returns = evaluate_continuous(agent, run.env, episodes, deterministic=fixed, seed=seed)
    return {"eval": (returns, "mean" if fixed else "sampled")}


def result_entry(returns: Returns, actions: str) -> dict[str, Any]:
    """What a card keeps of an evaluation: mean, interval, number of episodes, how actions were chosen."""
    interval = bootstrap_mean(returns.returns)
    rounded = {key: round(value, 4) for key, value in interval._asdict().items()}
    return {**rounded, "episodes": len(returns.returns), "actions": actions}
