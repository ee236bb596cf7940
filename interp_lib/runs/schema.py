"""What a config.json can say, whichever algorithm it is of: it may come from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def is_number(value: Any) -> bool:
    """Whether it is a number, which to Python a truth value is as well."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    """Whether it is a whole number from 0 on."""
    return is_number(value) and isinstance(value, int) and value >= 0


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


# Entry → whether it can have this value, in the order they are looked at.
_ENTRIES: dict[str, Callable[[Any], bool]] = {
    "timesteps": is_count,
    "seed": lambda value: value is None or is_count(value),  # SAC of Stable-Baselines3 needs none
    **dict.fromkeys(
        ("hyperparameters", "spaces", "training", "provenance", "results", "files", "prototypes"), _is_dict
    ),
}


def wrong_in(config: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the values of a config.json; only the first is sure to be its own fault.

    Args:
        config: has the entries that every run has.
    """
    inside: list[Any] = [config]
    while inside:  # no recursion: it may be nested deeply
        value = inside.pop()
        inside += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if isinstance(value, (int, float)) and not abs(value) < 2**63:  # NaN neither
            yield "a number is not finite"
    if not isinstance(config["env"], str) or len(config["env"]) > 200:
        yield "env is no name"
    for name, can_be in _ENTRIES.items():
        if name in config and not can_be(config[name]):
            yield f"{name} is {config[name]!r:.60}"
    history = config.get("history", [])
    if not (isinstance(history, list) and all(map(_is_slice, history))):
        yield "history is no list of slices"
    parts = [*history, config.get("provenance", {})]
    if not all(_is_dict(part.get(name, {})) for part in parts for name in ("hardware", "libraries", "git")):
        yield "its provenance is damaged"
    for side, result in config.get("results", {}).items():
        if not _is_result(result):
            yield f"the result of {side!r:.60} is no mean in its interval"
    for name in ("skill_weight", "seconds", "updates"):
        if not is_number(config.get("training", {}).get(name, 0)):
            yield f"training.{name} is no number"
    if not all(map(is_number, config.get("prototypes", {}).values())):
        yield "the numbers of its prototypes are damaged"
    if not all(isinstance(value, str) for value in config.get("files", {}).values()):
        yield "its checksums are damaged"


def _is_slice(part: Any) -> bool:
    """Of training: from one step to another."""
    return _is_dict(part) and is_count(part.get("from")) and is_count(part.get("to"))


def _is_result(result: Any) -> bool:
    if not _is_dict(result):
        return False
    interval = [result.get(key) for key in ("low", "mean", "high")]
    ordered = all(map(is_number, interval)) and interval == sorted(interval)
    return ordered and is_count(result.get("episodes")) and isinstance(result.get("actions", ""), str)
