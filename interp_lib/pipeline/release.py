"""Releasing runs: measure them, write card and checksums, list what is shipped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..agents.returns import Returns, evaluate_continuous
from ..clusters.descriptions import read_descriptions
from ..common.errors import InterpError, printable
from ..common.statistics import columns
from ..common.storage import read_file, read_tensors, scratch_folder, write_json, write_tensors
from ..evaluation.returns import default_episodes, evaluate_run, random_returns, result_entry
from ..runs.checks import misstatements
from ..runs.folder import (
    NOTES,
    RELEASED_FILES,
    Run,
    check_weights,
    load_agent,
    read_run,
    survey_runs,
)
from ..runs.release import check_release, release_run


def evaluate_and_release(run_dir: Path | str, folder: Path | str, episodes: int | None = None) -> Run:
    """Evaluate a run as its paper does, with a random policy beside it, and copy it to ``folder``.

    Procgen agents also play with their most probable actions. The return of every episode is kept (returns.csv), so
    that comparisons need no new evaluation. A released run can be measured again: ``run_dir`` may lie in ``folder``.

    Weights are stored in float16, which halves them; what is measured is what is stored.

    Raises:
        InterpError: the run is incomplete, or ``folder`` can't be written.
    """
    run = read_run(run_dir)
    with scratch_folder() as temporary:
        # A snapshot: the run may go on training while it is measured.
        snapshot = temporary / run.name
        snapshot.mkdir()
        for name in ("config.json", *RELEASED_FILES):
            if not (run.path / name).exists():
                raise InterpError(f"{run.path / name} is missing: the run can't be released. Train it again.")
            (snapshot / name).write_bytes(read_file(run.path / name))
        for name in NOTES:
            if os.path.lexists(run.path / name):
                (snapshot / name).write_bytes(read_file(run.path / name))
        run = read_run(snapshot)
        check_release(run, run_dir, Path(folder) / run.name)  # before it takes minutes
        if run.record.explains == "clusters":
            read_descriptions(run.path, run.config["hyperparameters"]["num_codes"])
        check_weights(run)
        # What is measured now is none of what was released before.
        write_json(snapshot / "config.json", {k: v for k, v in run.config.items() if k != "files"})
        halve_weights(snapshot / "policy.safetensors")
        episodes = default_episodes(run) if episodes is None else episodes
        measured = evaluate_run(run, episodes)
        if run.record.procgen:
            fixed = evaluate_run(run, episodes, deterministic=True)
            measured |= {f"{side}_deterministic": result for side, result in fixed.items()}
        prototypes = None
        if run.record.explains == "prototypes":
            before, prototypes = measure_prototypes(run, episodes)
            if before is not None:
                measured["before_projection"] = (before, "mean")
        measured["random"] = (random_returns(run, episodes), "uniform")
        results = {side: result_entry(returns, how) for side, (returns, how) in measured.items()}
        return release_run(
            snapshot, folder, results, prototypes, {side: returns.returns for side, (returns, _) in measured.items()}
        )


def measure_prototypes(run: Run, episodes: int) -> tuple[Returns | None, dict[str, Any]]:
    """What projection cost a ProtoSAC run, how many of its prototypes are used, and how like their states they are.

    Returns:
        returns of the same evaluation episodes with the prototypes as they were before their last projection (None if
        they are not projected); and ``of``, the number of prototypes, ``in_use`` with its 95% interval ``low`` to
        ``high`` and ``per_decision`` (prototypes.usage.Usage); ``nearest``, ``near`` and ``ratio`` with ``_low`` and
        ``_high`` and ``duplicates`` (prototypes.likeness; left out where unknown); and ``leading``, how many lead at
        least one decision, over the ``decisions`` of ``episodes``.
    """
    from ..prototypes.study import PrototypeStudy

    agent = load_agent(run.path)
    before = None
    if agent.prototypes.projected:
        with agent.free_prototypes():
            before = evaluate_continuous(agent, run.env, episodes)
    study = PrototypeStudy.record(agent, run.env, episodes)
    usage, in_use, alike = study.usage, study.in_use, study.likeness
    measured = {
        "in_use": in_use.mean,
        "low": in_use.low,
        "high": in_use.high,
        "per_decision": usage.per_decision.mean(),
        **columns("nearest", alike.agent.nearest, "_"),
        **columns("near", alike.agent.near, "_"),
        **columns("ratio", alike.agent.ratio, "_"),
    }
    entry = {name: round(float(value), 2) for name, value in measured.items() if np.isfinite(value)}
    if agent.prototypes.observations is not None:
        entry["duplicates"] = len(alike.duplicates)
    counts = {"leading": int((usage.led > 0).sum()), "decisions": len(usage.per_decision), "episodes": episodes}
    return before, {"of": agent.n_prototypes, **entry, **counts}


def halve_weights(path: Path) -> None:
    """Store float32 weights as float16, in place; the states that prototypes were projected on stay what they were."""
    import torch  # here: `interp checkpoints list` is three times as fast without it

    tensors = read_tensors(path)
    exact = {name for name, w in tensors.items() if w.dtype != torch.float32 or name.endswith("observations")}
    write_tensors(path, {name: w if name in exact else w.half() for name, w in tensors.items()})


def list_runs(folder: Path | str) -> list[dict[str, Any]]:
    """What is shipped: one dict a run with algorithm, env, seed, timesteps, returns with n and interval, size.

    At the end, those whose config can't be read or states what other files contradict, with ``run`` and ``damaged``.
    """
    rows = []
    runs, damaged = survey_runs(folder)
    for run in runs:
        # A run that is still trained is listed as well.
        wrong = misstatements(run) if "files" in run.config else []
        if wrong:
            damaged[run.name] = "; ".join(wrong)
            continue
        test = run.results.get("unseen") or run.results.get("eval", {})
        sides = {"train": run.results.get("train", {}), "test": test}
        rows.append(
            {
                "run": run.name,
                "algorithm": run.algorithm,
                "env": run.env,
                "seed": run.seed,
                "timesteps": run.timesteps,
                "full_budget": run.record.full_budget(run.env),
                **{f"return_{side}{end}": result.get(end.strip("_") or "mean") for side, result in sides.items()
                   for end in ("", "_low", "_high")},
                "episodes": test.get("episodes"),
                "return_random": run.results.get("random", {}).get("mean"),
                "megabytes": round(sum(f.lstat().st_size for f in run.path.iterdir()) / 1e6, 2),
                "sha256": run.config.get("files", {}),
            }
        )  # fmt: skip
    rows += [{"run": name, "damaged": damaged[name]} for name in sorted(damaged)]
    if not rows:
        raise InterpError(f"no runs in {folder}. Train one: interp train sppo fruitbot")
    return rows


def render_list(rows: list[dict[str, Any]]) -> str:
    """The same as text; ``budget`` is the share of the full budget that was trained.

    Procgen's returns on training and on unseen levels have a column each. Continuous tasks have no levels, and chance
    decides where their episodes start: in training as in evaluation (see evaluation.evaluate_continuous).
    """
    sides, title = ("training levels", "unseen levels or evaluation"), "return [95% interval]"
    lines = [f"{'':<43}{title:^50}".rstrip()]
    lines.append(f"{'run':<25}{'steps':>10}{'budget':>8}{sides[0]:>22}{sides[1]:>28}{'n':>5}{'random':>10}{'MB':>6}")
    for row in rows:
        if "damaged" in row:
            lines.append(f"{printable(row['run']):<25}damaged: {row['damaged']}")
            continue
        steps, budget = row["timesteps"], row["full_budget"]
        share = "" if not budget else f"{steps / budget:.1%}" if steps < budget else "full"
        random = "" if row["return_random"] is None else f"{row['return_random']:.2f}"
        name = printable(row["run"])
        line = f"{name:<25}{steps:>10,}{share:>8}{_measured(row, 'train'):>22}{_measured(row, 'test'):>28}"
        lines.append(f"{line}{row['episodes'] or '':>5}{random:>10}{row['megabytes']:>6}")
    return "\n".join(lines)


def _measured(row: dict[str, Any], side: str) -> str:
    mean, low, high = (row[f"return_{side}{bound}"] for bound in ("", "_low", "_high"))
    if mean is None:
        return "–" if row["episodes"] else "not measured"
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"
