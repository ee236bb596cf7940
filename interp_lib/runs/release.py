"""Release a run: a copy with results, checksums and card that takes its place as a whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..common.errors import InterpError
from ..common.storage import write_json, write_text
from .card import render_card
from .checks import misstated_steps
from .folder import NOTES, RELEASED_FILES, RETURNS, Run, read_run, sha256


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
        for name in (*RELEASED_FILES, *(note for note in NOTES if (run.path / note).exists())):
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
        problem = misstated_steps(run)
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
