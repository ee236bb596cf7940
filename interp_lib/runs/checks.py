"""What a released run says of itself, compared with its files: checksums, learning curve, returns."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pandas as pd

from ..agents.learning_curve import ROW_STEPS, read_progress
from ..common.errors import InterpError
from ..common.storage import read_file, read_tensors, refuse_nonfinite
from .folder import RELEASED_FILES, RETURNS, Run, problem_of, sha256


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
        elif (problem := problem_of(path, checksums[name])) is not None:
            problems.append(problem)
    if not (run.path / "card.md").is_file():
        problems.append(f"{run.path / 'card.md'} is missing")
    if not problems:
        try:
            refuse_nonfinite(read_tensors(run.path / "policy.safetensors"), run.path / "policy.safetensors")
        except InterpError as error:
            problems.append(str(error))
    return problems or misstatements(run)


def misstatements(run: Run) -> list[str]:
    """What the config of a released run says and its learning curve or returns contradict. No checksum covers it."""
    config = run.path / "config.json"
    try:
        problems = list(filter(None, [misstated_steps(run)]))
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


def misstated_steps(run: Run) -> str | None:
    """How the steps in the config and those of the learning curve differ, if they do; InterpError without a curve."""
    config, last = run.path / "config.json", int(read_progress(run.path)["total_timesteps"].iloc[-1])
    history = run.config.get("history") or [{"to": run.timesteps}]
    # SAC and ProtoSAC write a row every 1,000 steps at most, so a run that was stopped is a little further.
    gap = 0 if run.record.procgen else ROW_STEPS
    if not last <= run.timesteps <= last + gap or history[-1]["to"] != run.timesteps:
        return f"{config} says {run.timesteps:,} steps, and progress.csv ends at {last:,}"
    return None


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


def run_digest(run: Run) -> str:
    """One SHA-256 for a run folder: of its config, weights, learning curve and, where kept, returns."""
    files = [run.path / name for name in ("config.json", *RELEASED_FILES, RETURNS)]
    listed = "".join(f"{sha256(path)}  {path.name}\n" for path in files if path.is_file())
    return hashlib.sha256(listed.encode()).hexdigest()
