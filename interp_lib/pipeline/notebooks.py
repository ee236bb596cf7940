"""What a notebook says about itself: the parameters it takes, and in its metadata what it needs and how long it takes.

    "interp": {
      "runs": [{"algorithms": ["ppo", "sppo"], "env": "env", "seed": "seed", "explored": true}],
      "compares_all": true,
      "seconds": {"quick": 29, "paper": 31}
    }

It shows runs of these algorithms on the environment that its parameter ``env`` names; ``seed`` is a parameter or a
number, and matters to fresh runs: of released ones every seed may be shown. What runs that are ``explored`` explain
(SPPO's clusters, ProtoSAC's prototypes) is collected and gets a page of its own. ``compares_all``: every released run
is shown as well. ``seconds`` is what a profile took elsewhere, until it is known here.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..common.errors import InterpError
from ..envs.names import CONTINUOUS_TASKS, PROCGEN_GAMES, continuous_task, procgen_game


def read_notebook(path: Path | str) -> dict[str, Any]:
    """A notebook in nbformat 4.

    Raises:
        InterpError: no such notebook, or not a notebook.
    """
    path = Path(path)
    try:
        return _read(path, path.stat().st_mtime_ns)
    except FileNotFoundError as error:
        raise InterpError(f"notebook {path} does not exist.") from error
    except (OSError, ValueError, AttributeError) as error:  # nbformat's NotJSONError is a ValueError
        what = next(iter(str(error).splitlines()), type(error).__name__)[:120]
        raise InterpError(f"{path} is not a readable notebook ({what}). Restore it with git.") from error


@functools.lru_cache
def _read(path: Path, changed: int) -> dict[str, Any]:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if notebook["nbformat"] == 4 and isinstance(notebook["cells"], list):
            return notebook
    import nbformat  # says what is wrong, or converts; it takes a second to import, and a plan is made at every start

    return nbformat.read(path, as_version=4)


def declared_parameters(path: Path | str) -> dict[str, Any]:
    """Names and default values of the parameters a notebook declares in its cell tagged ``parameters``.

    A default that isn't a Python literal is given as its source text.

    Raises:
        InterpError: as `read_notebook`, or it has no parameters cell.
    """
    for cell in read_notebook(path)["cells"]:
        if "parameters" in cell.get("metadata", {}).get("tags", ()):
            return dict(_assigned("".join(cell["source"])))
    raise InterpError(f"{Path(path).name} has no parameters cell. Tag the cell that sets its options 'parameters'.")


def declared_needs(path: Path | str) -> dict[str, Any] | None:
    """What the notebook's metadata say, as above; None: nothing, or it is a broken one, as will be said in its turn."""
    with contextlib.suppress(InterpError):
        return read_notebook(path).get("metadata", {}).get("interp")
    return None


def _assigned(source: str) -> Iterable[tuple[str, Any]]:
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return  # running it will say so
    for node in body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and (value := getattr(node, "value", None)) is not None:
            try:
                yield target.id, ast.literal_eval(value)
            except ValueError:
                yield target.id, ast.get_source_segment(source, value)


def numbered_notebooks(folder: Path) -> list[Path]:
    """``NN_*.ipynb`` of a folder, in order; those that Snakemake has no way to name are left out."""
    return [path for path in sorted(folder.glob("*.ipynb")) if re.fullmatch(r"\d+_[\w .,()+-]*", path.stem)]


def select_notebooks(folder: Path, only: str | Iterable[str] | None = None) -> list[Path]:
    """The numbered notebooks of ``folder`` in order, or those that ``only`` names by number or by name.

    Raises:
        InterpError: there are none, or ``only`` names one that isn't there.
    """
    found = {path.stem: path for path in numbered_notebooks(folder)}
    if not found:
        raise InterpError(f"no numbered notebooks in {folder.resolve()}. Run this in the repository's root.")
    if only is None:
        return list(found.values())
    chosen = set()
    for word in [part.strip() for part in (only.split(",") if isinstance(only, str) else only)]:
        stem = word.removesuffix(".ipynb")
        matches = [s for s in found if s == stem or (stem.isdigit() and int(s.split("_")[0]) == int(stem))]
        if not matches:
            raise InterpError(f"no notebook '{word}'. Valid: {', '.join(found)} (or just the number).")
        chosen.update(matches)
    return [path for stem, path in found.items() if stem in chosen]


ENVIRONMENT_PARAMETERS = ("env", "task")  # Procgen game, continuous task


def environment_parameters(declared: Mapping[str, Any], env: str | None) -> list[str]:
    """The parameters of a notebook that take ``env``: those whose default is an environment of its kind."""
    kinds = _kinds(env)
    return [name for name in ENVIRONMENT_PARAMETERS if kinds & _kinds(declared.get(name))]


def takes_environment(path: Path, env: str) -> bool:
    """Whether a notebook has a parameter for ``env``; a broken one is reported as such when its turn comes."""
    with contextlib.suppress(InterpError):
        return bool(environment_parameters(declared_parameters(path), env))
    return True


def canonical_environment(name: str) -> str:
    """A Procgen game's or a continuous task's own name.

    Raises:
        InterpError: it is neither.
    """
    for canonical in _kinds(name):
        return canonical(name)
    valid = (*PROCGEN_GAMES, *CONTINUOUS_TASKS)
    near = difflib.get_close_matches(name.lower(), valid, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Valid names: {', '.join(valid)}."
    raise InterpError(f"unknown environment '{name}'. {hint}")


def _kinds(name: Any) -> set[Any]:
    """`procgen_game` or `continuous_task`, whichever knows an environment."""
    found = set()
    for kind in (procgen_game, continuous_task) if isinstance(name, str) else ():
        with contextlib.suppress(InterpError):
            kind(name)
            found.add(kind)
    return found
