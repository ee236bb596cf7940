"""The card of a released run: Markdown for people, made of its config.json."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from ..agents.registry import ALGORITHMS
from ..common.statistics import FEW

SIDE_TITLES = {
    "train": "training levels",
    "unseen": "unseen levels",
    "train_deterministic": "training levels",
    "unseen_deterministic": "unseen levels",
    "eval": "evaluation episodes",
    "random": "random policy",
    "before_projection": "before the last projection",
}


def render_card(config: dict[str, Any]) -> str:
    """The card of a released run, from its config; every number in it was measured."""
    algorithm, env, seed, steps = config["algorithm"], config["env"], config["seed"], config["timesteps"]
    record, results, training = ALGORITHMS[algorithm], config.get("results", {}), config.get("training", {})
    budget = record.full_budget(env)
    again = f"interp train {algorithm} {env} --seed {seed}{_flags(config)} --timesteps"
    lines = [f"# {record.title} on {env}, seed {seed}", ""]
    lines.append(f"Trained for **{steps:,} environment steps** by this repository's code.")
    if steps < budget:
        whose = "The paper trains" if record.procgen else "The task's settings are for"
        lines.append(
            f"{whose} {budget:,} steps: this is {steps / budget:.1%} of that budget, and not comparable with results "
            f"at its end. {budget - steps:,} steps are missing."
        )
    lines += ["", "| return | mean | 95% interval | episodes | actions |", "|---|---|---|---|---|"]
    for side, r in results.items():
        interval = f"{r['low']:.2f} to {r['high']:.2f}"
        title = SIDE_TITLES.get(side, side)
        lines.append(f"| {title} | {r['mean']:.2f} | {interval} | {r['episodes']} | {r.get('actions', '')} |")
    kind = "BCa" if min((r["episodes"] for r in results.values()), default=FEW) < FEW else "percentile"
    lines += ["", f"Intervals: {kind} bootstrap of the mean over episodes.", ""]
    if not better_than_random(results):
        lines += ["**Not better than a random policy as far as these episodes can tell: the intervals overlap.**", ""]
    if "prototypes" in config:
        p = config["prototypes"]
        lines += [
            f"Prototypes in use: **{p['in_use']:.1f} of {p['of']}** (95% interval {p['low']:.1f} to {p['high']:.1f}), "
            f"{p['per_decision']:.1f} a decision (exponentials of the entropies of the mean weights, and of each "
            f"decision's); {p['leading']} lead at least one decision. "
            f"n = {p['decisions']:,} decisions in {p['episodes']} evaluation episodes.",
            "",
        ]
        if "near" in p:  # releases before it was measured, and prototypes that are no states
            lines += [
                "Likeness, in observations: the prototype that leads is the nearest one in "
                f"{_with_ends(p, 'nearest', '.0%')} of these decisions, among the 3 nearest in "
                f"{_with_ends(p, 'near', '.0%')}, and {_with_ends(p, 'ratio', '.2f')} times as far as a random state "
                f"(medians). Pairs of prototypes that look the same and act differently: {p['duplicates']}. "
                "95% intervals: bootstrap over episodes.",
                "",
            ]
    if record.explains == "clusters":
        lines += [f"The skill weight λ had reached {training['skill_weight']:.2f}.", ""]
    lines += _history_lines(config)
    lines += ["## Train it again", "", "```", f"{again} {steps}"]
    if steps < budget:
        lines.append(f"{again} {budget}  # the full budget")
    lines += ["```", "", "Every hyper-parameter is in `config.json`."]
    return "\n".join(lines) + "\n"


def better_than_random(results: dict[str, dict[str, Any]]) -> bool:
    """Whether the interval on unseen levels or evaluation episodes lies above a random policy's; True if unmeasured."""
    own, random = results.get("unseen") or results.get("eval"), results.get("random")
    return not (own and random) or own["low"] > random["high"]


def _with_ends(numbers: dict[str, Any], name: str, how: str) -> str:
    low, high = (numbers.get(f"{name}_{end}") for end in ("low", "high"))  # one episode has no interval
    return f"**{numbers[name]:{how}}**" + ("" if low is None or high is None else f" [{low:{how}}, {high:{how}}]")


def _flags(config: dict[str, Any]) -> str:
    """What a command adds for hyper-parameters that are not the defaults; of continuous tasks, config.json knows."""
    record, given = ALGORITHMS[config["algorithm"]], config.get("hyperparameters", {})
    if not record.procgen:
        return ""
    options = [option for option in fields(record.settings_class) if option.name not in ("env", "seed")]
    changed = [(o.name.replace("_", "-"), given[o.name]) for o in options if given.get(o.name, o.default) != o.default]
    return "".join(f" --{name} {value}" for name, value in changed)


def _history_lines(config: dict[str, Any]) -> list[str]:
    """On what the run was trained: a sentence, or a list where machine, precision, PyTorch or revision changed."""
    hours = config.get("training", {}).get("seconds", 0) / 3600
    took = f" In all it took {hours:.1f} hours." if hours >= 0.05 else ""
    history = config.get("history") or [config.get("provenance", {})]
    stays: list[tuple[str, list[dict[str, Any]]]] = []  # neighbours that were trained alike
    for part in history:
        how = _trained_on(part)
        if not stays or stays[-1][0] != how or "new_dice" in part:
            stays.append((how, []))
        stays[-1][1].append(part)
    if len(stays) == 1:
        slices = f", in {len(history)} slices" if len(history) > 1 else ""
        return [f"Trained on {stays[0][0]}{slices}.{took}", ""]
    lines = [f"Training went on on another machine or revision.{took}", ""]
    for how, parts in stays:
        dice = parts[0].get("new_dice")
        anew = f"; its dice start from seed {dice}" if dice is not None else ""
        lines.append(f"- steps {parts[0]['from']:,} to {parts[-1]['to']:,} on {how}{anew}")
    return [*lines, ""]


def _trained_on(part: dict[str, Any]) -> str:
    """Device, precision, PyTorch and revision of a slice of training, in words."""
    hardware, libraries, git = (part.get(key, {}) for key in ("hardware", "libraries", "git"))
    device = hardware.get("gpu") or f"{hardware.get('cpu')}, {hardware.get('cores')} cores"
    words = [re.sub(r" +", " ", str(device)), *filter(None, [part.get("precision")])]
    line = f"{', '.join(words)}, with PyTorch {libraries.get('torch')}"
    if git.get("revision"):
        line += f", revision {git['revision'][:10]}" + (" with uncommitted changes" if git.get("dirty") else "")
    return line
