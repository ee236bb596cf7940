"""Run folders: find them, load their agents, release them with card and checksums, verify them.

<algorithm>-<env>-s<seed>/
  config.json          hyper-parameters, provenance; for released runs also results and checksums
  policy.safetensors   weights only
  progress.csv         learning curve
  card.md              for people, made from config.json
  returns.csv          the return of every episode behind the results; older releases lack it
  descriptions.yml     what people see in each cluster (.descriptions); there once somebody has written it
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..agents.learning_curve import ROW_STEPS, read_progress
from ..agents.registry import ALGORITHMS, SEMANTIC_ALGORITHMS, agent_class, agent_name, full_budget
from ..common.errors import InterpError
from ..common.storage import read_file, read_json, read_tensors, refuse_nonfinite, write_json, write_text

if TYPE_CHECKING:
    from ..agents.sppo.config import PPOConfig


# One folder and no way out of it, nothing a shell, a page or a terminal takes for more than a name; no leading dot,
# which marks what is not finished.
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


RELEASED_FILES = ("policy.safetensors", "progress.csv")


RETURNS = "returns.csv"


NOTES = ("descriptions.yml",)  # written by people at any time: a release takes them along, without a checksum


SHIPPED_FILES = ("config.json", *RELEASED_FILES, RETURNS, "card.md", *NOTES)  # all that a released run consists of


@dataclass(frozen=True)
class Run:
    """A run folder and its config.json."""

    path: Path
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Folder name, e.g. ``sppo-ninja-s2021``."""
        return Path(os.path.abspath(self.path)).name  # of "." and ".." as well

    @property
    def algorithm(self) -> str:
        """``ppo``, ``sppo``, ``sac`` or ``protosac``."""
        return self.config["algorithm"]

    @property
    def env(self) -> str:
        """Short name of the environment."""
        return self.config["env"]

    @property
    def seed(self) -> int:
        """Training seed."""
        return self.config["seed"]

    @property
    def timesteps(self) -> int:
        """Environment steps trained."""
        return self.config["timesteps"]

    @property
    def results(self) -> dict[str, Any]:
        """What the release measured: mean, low, high, episodes by side (a key of ``SIDE_TITLES``)."""
        return self.config.get("results", {})

    @property
    def mode(self) -> str | None:
        """Procgen's distribution mode, ``easy`` or ``hard``; None for a continuous task."""
        return self.config.get("hyperparameters", {}).get("distribution_mode")

    @property
    def num_levels(self) -> int:
        """Number of Procgen levels it was trained on; 0 means all of them."""
        return self.config.get("hyperparameters", {}).get("num_levels", 0)


def read_run(run_dir: Path | str) -> Run:
    """Read a run folder's config.

    Raises:
        InterpError: no such folder, it is not a run folder, or its config says what no config can say.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise InterpError(f"no run folder {run_dir}. `interp checkpoints list` shows the released ones.")
    path = run_dir / "config.json"
    config = read_json(path)
    missing = {"algorithm", "env", "seed", "timesteps"} - set(config if isinstance(config, dict) else ())
    if missing:
        raise InterpError(f"{path} lacks {', '.join(sorted(missing))}: not a run of this project.")
    if config["algorithm"] not in tuple(ALGORITHMS):  # compared, not hashed: a damaged config may hold a list
        raise InterpError(f"{path} is of the unknown algorithm {config['algorithm']!r:.60}. Restore it.")
    if config.get("format", 1) != 1:
        raise InterpError(
            f"{path} has format {config['format']!r:.60}; this version reads format 1. Update interp-lib."
        )
    wrong = next(_wrong_in(config), None)
    if wrong is not None:
        raise InterpError(f"{path} is damaged: {wrong}. Restore it or train the run again.")
    if config["algorithm"] in SEMANTIC_ALGORITHMS and "hyperparameters" in config:
        settings_of(Run(run_dir, config))
    return Run(run_dir, config)


def settings_of(run: Run) -> PPOConfig:
    """The hyper-parameters of a PPO or SPPO run, checked.

    Raises:
        InterpError: they are missing or no such run's, or of another game or seed than the run says.
    """
    from ..agents.sppo.config import PPOConfig, SPPOConfig

    cls = SPPOConfig if run.algorithm == "sppo" else PPOConfig
    try:
        config = cls.from_dict(run.config.get("hyperparameters", {}))
    except InterpError as error:
        raise InterpError(f"{run.path / 'config.json'} is damaged: {error}") from error
    if (config.env, config.seed) != (run.env, run.seed):
        raise InterpError(f"{run.path / 'config.json'} is damaged: its hyperparameters are of another game or seed.")
    return config


def _wrong_in(config: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the values of a config.json, whichever algorithm it is of."""
    inside: list[Any] = [config]
    while inside:  # no recursion: it may be nested deeply
        value = inside.pop()
        inside += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if isinstance(value, (int, float)) and not abs(value) < 2**63:  # NaN neither
            yield "a number is not finite"
    if not isinstance(config["env"], str) or len(config["env"]) > 200:
        yield "env is no name"
    for name, optional in (("timesteps", False), ("seed", True)):  # SAC of Stable-Baselines3 needs no seed
        value = config[name]
        if not (_is_count(value) or (optional and value is None)):
            yield f"{name} is {value!r:.60}"
    for name in ("hyperparameters", "spaces", "training", "provenance", "results", "files", "prototypes"):
        if not isinstance(config.get(name, {}), dict):
            yield f"{name} is {config[name]!r:.60}"
            return
    history = config.get("history", [])
    if not isinstance(history, list) or not all(isinstance(part, dict) for part in history):
        yield "history is no list of slices"
        return
    for part in [*history, config.get("provenance", {})]:
        if not all(isinstance(part.get(name, {}), dict) for name in ("hardware", "libraries", "git")):
            yield "its provenance is damaged"
    if not all(_is_count(part.get(name)) for part in history for name in ("from", "to")):
        yield "history is no list of slices"
    for side, result in config.get("results", {}).items():
        numbers: list[Any] = (
            [result.get(key) for key in ("low", "mean", "high")] if isinstance(result, dict) else [None]
        )
        ordered = all(_is_number(x) for x in numbers) and numbers == sorted(numbers)
        if not ordered or not _is_count(result.get("episodes")) or not isinstance(result.get("actions", ""), str):
            yield f"the result of {side!r:.60} is no mean in its interval"
    for name in ("skill_weight", "seconds", "updates"):
        if not _is_number(config.get("training", {}).get(name, 0)):
            yield f"training.{name} is no number"
    if not all(map(_is_number, config.get("prototypes", {}).values())):
        yield "the numbers of its prototypes are damaged"
    if not all(isinstance(value, str) for value in config.get("files", {}).values()):
        yield "its checksums are damaged"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def load_agent(run_dir: Path | str, *, device: str = "auto") -> Any:
    """Load the agent of a run folder: PPO, SPPO, SAC or ProtoSAC, ready to ``predict``.

    Raises:
        InterpError: the folder is missing, incomplete or damaged, or a released run has other weights than those it
            was released with.
    """
    run = read_run(run_dir)
    check_weights(run)
    cls = agent_class(run.algorithm)
    if run.algorithm in SEMANTIC_ALGORITHMS:
        return cls.load(run.path, device=device)
    return cls.load_run(run.path, device=device)


def check_weights(run: Run) -> None:
    """Compare the weights of a released run with their checksum; a run that is still trained has none.

    Raises:
        InterpError: they are missing, or not those that were released.
    """
    expected = run.config.get("files", {}).get("policy.safetensors")
    problem = None if expected is None else _problem_of(run.path / "policy.safetensors", expected)
    if problem is not None:
        raise InterpError(f"{problem}. Restore it or release the run again.")


def find_runs(folder: Path | str = "checkpoints", *, algorithm: str | None = None, env: str | None = None) -> list[Run]:
    """All runs in ``folder``, by name; optionally of one algorithm or environment.

    Folders whose names are none of a run are passed over, which is said on stderr, once.

    Raises:
        InterpError: one of them is damaged.
    """
    runs, damaged = survey_runs(folder)
    for reason in damaged.values():
        raise InterpError(reason)
    return [run for run in runs if algorithm in (None, run.algorithm) and env in (None, run.env)]


def survey_runs(folder: Path | str) -> tuple[list[Run], dict[str, str]]:
    """All runs in ``folder``, by name; and by the names of those whose config can't be read, why."""
    runs, damaged = [], {}
    for path in sorted(Path(folder).glob("*/")):
        # A dot: what put_in_place or release_run was working on when it was killed. A link may lead nowhere.
        if path.name.startswith(".") or not os.path.lexists(path / "config.json"):
            continue
        if not RUN_NAME.fullmatch(path.name):
            _say_once(f"passed over {str(path)!r}: a run's name is letters, digits, dots, - and _. Rename the folder.")
            continue
        try:
            runs.append(read_run(path))
        except InterpError as error:
            damaged[path.name] = str(error)
    return runs, damaged


@functools.cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)


def find_run(folder: Path | str, algorithm: str, env: str, *, seed: int | None = None) -> Run:
    """The run of ``algorithm`` on ``env`` that was trained longest; of equally long ones, that of ``seed``.

    Raises:
        InterpError: there is none; the message names the environments that have one.
    """
    runs = find_runs(folder, algorithm=algorithm)
    of_env = [run for run in runs if run.env == env]
    if not of_env:
        there = ", ".join(sorted({run.env for run in runs})) or "none"
        raise InterpError(
            f"{folder} has no {algorithm} run on {env} (there: {there}). Train one: interp train {algorithm} {env}"
        )
    return max(of_env, key=lambda run: (run.timesteps, run.seed == seed))


def release_run(
    run_dir: Path | str,
    folder: Path | str,
    results: dict[str, dict[str, Any]],
    prototypes: dict[str, Any] | None = None,
    returns: Mapping[str, np.ndarray] | None = None,
) -> Run:
    """Copy a run into ``folder`` as a released run, with measured ``results``, checksums and card.

    The results must have been measured on this very ``policy.safetensors``, and so must ``prototypes``, what there is
    to say about those of ProtoSAC (release.measure_prototypes), and ``returns``, by side the return of every episode
    (N,). A released run of the same name is replaced only once the new one is complete.

    Raises:
        InterpError: the run is incomplete, or ``folder`` can't be written.
    """
    run = read_run(run_dir)
    target = Path(folder) / run.name
    check_release(run, run.path, target)
    fresh = workplace(target)
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for name in RELEASED_FILES:
            shutil.copyfile(run.path / name, fresh / name)
        for name in NOTES:
            if (run.path / name).exists():
                shutil.copyfile(run.path / name, fresh / name)
        released = list(RELEASED_FILES)
        if returns:
            columns = {side: pd.Series(np.asarray(values, np.float64)) for side, values in returns.items()}
            write_text(fresh / RETURNS, pd.DataFrame(columns).to_csv(index=False, float_format="%.6g"))
            released.append(RETURNS)
        config = {**run.config, "results": results, "files": {n: sha256(fresh / n) for n in released}}
        if prototypes is not None:
            config["prototypes"] = prototypes
        write_json(fresh / "config.json", config)
        write_text(fresh / "card.md", render_card(config))
        put_in_place(fresh, target)
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # of the card
        raise InterpError(f"{run.path / 'config.json'} is damaged: no card can be made of it ({error!r}).") from error
    except OSError as error:
        raise InterpError(f"cannot release {run.name} to {folder}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Run(target, config)


def check_release(run: Run, source: Path | str, target: Path) -> None:
    """Whether ``run``, as it is or as it was copied from ``source``, can be released to the folder ``target``.

    Raises:
        InterpError: its learning curve is damaged or not that of its steps, or the release would delete a state.
    """
    try:
        problem = _misstated_steps(run)
    except InterpError as error:
        problem = str(error).rstrip(".")
    if problem is not None:
        said = problem.replace(str(run.path), str(source))
        raise InterpError(f"{said}. Restore it, or train on before the release.")
    unfinished = next(target.glob("training_state.*"), None)
    if unfinished is not None:
        raise InterpError(f"{unfinished} is of a run that may go on: a release would delete it. Choose another folder.")


def workplace(target: Path) -> Path:
    """Where a run folder is made ready beside its place: the same path each time, so a killed attempt is cleared."""
    return target.with_name(f".{target.name}.new")


def put_in_place(fresh: Path, target: Path) -> None:
    """Move the complete run folder ``fresh`` to ``target``, in place of the run that may be there.

    That one is moved aside first and deleted last, so ``target`` never holds half a run, whatever happens in between.

    Raises:
        OSError: the move failed; what was at ``target`` is there again.
    """
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    try:
        os.replace(fresh, target)
    except OSError:
        if old.exists():
            os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def released_returns(run: Run) -> dict[str, np.ndarray]:
    """The return of every episode that the release of ``run`` measured, by side: float64 (N,).

    Empty for a run that was released before returns were kept, and for one that is still trained: a ``returns.csv``
    that the config doesn't vouch for may be of other weights.

    Raises:
        InterpError: the file is missing, altered or damaged.
    """
    expected = run.config.get("files", {}).get(RETURNS)
    if expected is None:
        return {}
    path = run.path / RETURNS
    data = read_file(path, 2**26)
    if hashlib.sha256(data).hexdigest() != expected:
        raise InterpError(f"{path} was altered or damaged (checksum differs). Restore it or release the run again.")
    try:
        frame = pd.read_csv(io.BytesIO(data), dtype=np.float64)
    except (ValueError, pd.errors.ParserError) as error:  # no UTF-8, no numbers, no columns
        raise InterpError(f"{path} is no table of returns. Restore it or release the run again.") from error
    returns = {side: frame[side].dropna().to_numpy() for side in frame.columns}
    if not all(len(values) and np.isfinite(values).all() for values in returns.values()):
        raise InterpError(f"{path} holds returns that are not finite. Restore it or release the run again.")
    return returns


def verify_run(run: Run) -> list[str]:
    """Problems of a released run: files missing or altered since the release, numbers of config.json that other files
    contradict; empty when it is intact.
    """
    checksums = run.config.get("files")
    if not isinstance(checksums, dict):
        return [f"{run.path} was never released: no checksums"]
    problems = []
    # And no other name a config.json may bring along: it can come from anywhere. Early releases kept no returns.
    kept_returns = RETURNS in checksums or (run.path / RETURNS).exists()
    for name in (*RELEASED_FILES, *([RETURNS] if kept_returns else [])):
        path = run.path / name
        if name not in checksums:
            problems.append(f"{run.path / 'config.json'} has no checksum of {name}")
        elif (problem := _problem_of(path, checksums[name])) is not None:
            problems.append(problem)
    if not (run.path / "card.md").is_file():
        problems.append(f"{run.path / 'card.md'} is missing")
    if not problems:
        try:
            refuse_nonfinite(read_tensors(run.path / "policy.safetensors"), run.path / "policy.safetensors")
        except InterpError as error:
            problems.append(str(error))
    return problems or misstatements(run)


def _problem_of(path: Path, checksum: str) -> str | None:
    if not path.exists():
        return f"{path} is missing"
    if not path.is_file():
        return f"{path} is no regular file"
    try:
        # One that is far too large isn't read to its end.
        same = path.stat().st_size <= 2**30 and sha256(path) == checksum
        return None if same else f"{path} was altered or damaged (checksum differs)"
    except OSError as error:
        return f"cannot read {path}: {error.strerror or error}"


def misstatements(run: Run) -> list[str]:
    """What the config of a released run says and its learning curve or returns contradict. No checksum covers it."""
    config, problems = run.path / "config.json", []
    try:
        if (problem := _misstated_steps(run)) is not None:
            problems.append(problem)
        returns = released_returns(run)
    except InterpError as error:
        return [str(error)]
    for side in sorted({*returns, *run.results} if returns else ()):
        if side not in returns or side not in run.results:
            problems.append(f"{config} and {RETURNS} have different results: {side} is in one of them only")
            continue
        values, result = returns[side], run.results[side]
        near = 1e-4 + 1e-5 * np.abs(values).max()  # six digits of a return are kept, and four behind a mean's point
        inside = values.min() - near <= result["low"] and result["high"] <= values.max() + near
        if len(values) != result["episodes"] or abs(values.mean() - result["mean"]) > near or not inside:
            problems.append(f"{config} states a result of {side} that {RETURNS} doesn't give")
    return problems


def _misstated_steps(run: Run) -> str | None:
    config, last = run.path / "config.json", int(read_progress(run.path)["total_timesteps"].iloc[-1])
    history = run.config.get("history") or [{"to": run.timesteps}]
    # SAC and ProtoSAC write a row every 1,000 steps at most, so a run that was stopped is a little further.
    gap = 0 if run.algorithm in SEMANTIC_ALGORITHMS else ROW_STEPS
    if not last <= run.timesteps <= last + gap or history[-1]["to"] != run.timesteps:
        return f"{config} says {run.timesteps:,} steps, and progress.csv ends at {last:,}"
    return None


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_digest(run: Run) -> str:
    """One SHA-256 for a run folder: of its config, weights, learning curve and, where kept, returns."""
    files = [run.path / name for name in ("config.json", *RELEASED_FILES, RETURNS)]
    listed = "".join(f"{sha256(path)}  {path.name}\n" for path in files if path.is_file())
    return hashlib.sha256(listed.encode()).hexdigest()


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
    name = agent_name(algorithm)
    lines = [f"# {name} on {env}, seed {seed}", ""]
    lines.append(f"Trained for **{steps:,} environment steps** by this repository's code.")
    budget = full_budget(algorithm, env)
    if steps < budget:
        whose = "The paper trains" if algorithm in SEMANTIC_ALGORITHMS else "The task's settings are for"
        lines.append(
            f"{whose} {budget:,} steps: this is {steps / budget:.1%} of that budget, and not comparable with results "
            f"at its end. {budget - steps:,} steps are missing."
        )
    lines += ["", "| return | mean | 95% interval | episodes | actions |", "|---|---|---|---|---|"]
    for side, r in config.get("results", {}).items():
        interval = f"{r['low']:.2f} to {r['high']:.2f}"
        title = SIDE_TITLES.get(side, side)
        lines.append(f"| {title} | {r['mean']:.2f} | {interval} | {r['episodes']} | {r.get('actions', '')} |")
    lines += ["", "Intervals: percentile bootstrap of the mean over episodes.", ""]
    if not better_than_random(config.get("results", {})):
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
    training = config.get("training", {})
    if algorithm == "sppo":
        lines += [f"The skill weight λ had reached {training['skill_weight']:.2f}.", ""]
    lines += _history_lines(config)
    lines += [
        "## Train it again",
        "",
        "```",
        f"interp train {algorithm} {env} --seed {seed} --timesteps {steps}",
        *([f"interp train {algorithm} {env} --seed {seed} --timesteps {budget}  # the full budget"] * (steps < budget)),
        "```",
    ]
    lines += ["", "Every hyper-parameter is in `config.json`."]
    return "\n".join(lines) + "\n"


def better_than_random(results: dict[str, dict[str, Any]]) -> bool:
    """Whether the interval on unseen levels or evaluation episodes lies above a random policy's; True if unmeasured."""
    own, random = results.get("unseen") or results.get("eval"), results.get("random")
    return not (own and random) or own["low"] > random["high"]


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
