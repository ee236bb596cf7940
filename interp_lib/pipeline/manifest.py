"""``figures/manifest.json`` says of every output what it is made of; a second run is compared with it.

outputs   file → SHA-256, the notebook or page it belongs to, parameters, seed, runs with their digests
made      notebook or page → when, in what time, by which revision, with which libraries, on what hardware
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..common.errors import InterpError
from ..common.outputs import read_table, saved_outputs
from ..common.storage import read_json, write_json
from ..runs.folder import sha256
from .plan import STAMPS, stamp

MANIFEST = "manifest.json"


def stamps(figures: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Kind, name and content of every stamp that lists files."""
    for kind in ("notebooks", "explorers"):
        for path in sorted((figures / STAMPS / kind).glob("*.json")):
            yield kind, path.stem, read_json(path)


def drop_damaged_stamps(figures: Path) -> list[str]:
    """Remove the stamps that say nothing, so that what they belong to is made again.

    Returns:
        their paths below ``figures``.
    """
    dropped = []
    for path in sorted((figures / STAMPS).glob("*/*.json")):
        maps = ("files", "runs", "provenance") if path.parent.name in ("notebooks", "explorers") else ("provenance",)
        with contextlib.suppress(InterpError, AttributeError):
            content = read_json(path)
            values = [content.get(name) for name in maps]
            if isinstance(content.get("seconds"), int | float) and all(isinstance(value, dict) for value in values):
                continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        dropped.append(path.relative_to(figures).as_posix())
    return dropped


def write_manifest(figures: Path) -> Path:
    """Write ``manifest.json`` from stamps and sidecars. It holds no host name and no path.

    An output whose notebook has no stamp (it failed later on) is listed without ``made``.

    Raises:
        InterpError: a sidecar or a stamp is damaged.
    """
    made: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    digests: dict[str, str] = {}
    for kind, name, content in stamps(figures):
        made[name] = {"seconds": content["seconds"], **content["provenance"]}
        digests |= content["runs"]
        if kind == "explorers":
            for file, digest in content["files"].items():
                outputs[file] = {"sha256": digest, "made": name, "kind": "page",
                                 "parameters": content.get("parameters", {}), "runs": content["runs"]}  # fmt: skip
    for notebook, saved in saved_outputs(figures).items():
        for output in saved:
            described = {
                "made": notebook,
                "kind": output.kind,
                "output": output.name,
                "parameters": output.parameters,
                "seed": output.parameters.get("seed"),
                "runs": {run.name: digests.get(run.name) for run in output.runs},
            }
            for file, digest in output.files.items():
                outputs[f"{notebook}/{file}"] = {"sha256": digest, **described}
    write_json(figures / MANIFEST, {"outputs": dict(sorted(outputs.items())), "made": made})
    return figures / MANIFEST


def altered_stamps(figures: Path) -> dict[str, str]:
    """Stamps whose files are gone or were changed since: stamp → what is wrong, for the user."""
    found = {}
    for kind, name, content in stamps(figures):
        for file, digest in content["files"].items():
            missing = not (figures / file).is_file()
            if missing or sha256(figures / file) != digest:
                found[stamp(kind, name)] = f"{file} {'is missing' if missing else 'was changed'}"
    return found


class Compared(NamedTuple):
    """One output of two runs: ``verdict`` is "identical" (bytes), "equal" (numbers, pixels), "differs" or "missing"."""

    file: str
    verdict: str
    detail: str = ""


def compare_outputs(before: Path, after: Path) -> list[Compared]:
    """Compare every output that ``before``'s manifest lists with the one of the same name in ``after``.

    Raises:
        InterpError: ``before`` has no manifest.
    """
    outputs = read_json(before / MANIFEST)["outputs"]
    made = read_json(after / MANIFEST)["outputs"]
    found = []
    for file, described in outputs.items():
        if file not in made:
            found.append(Compared(file, "missing", "not made this time"))
        elif made[file]["sha256"] == described["sha256"]:
            found.append(Compared(file, "identical"))
        else:
            found.append(Compared(file, *_compare(before / file, after / file)))
    found += [Compared(file, "missing", "not made before") for file in made.keys() - outputs.keys()]
    return found


def _compare(before: Path, after: Path) -> tuple[str, str]:
    how = {".csv": _tables, ".png": _pictures, ".webp": _pictures, ".mp4": _videos}.get(before.suffix)
    try:
        return how(before, after) if how else ("differs", "other bytes")
    except (OSError, ValueError, InterpError) as error:
        return "differs", f"can't be compared: {error}"


def _tables(before: Path, after: Path) -> tuple[str, str]:
    (names, rows), (new_names, new_rows) = read_table(before), read_table(after)
    if names != new_names or len(rows) != len(new_rows):
        return "differs", f"{len(rows)} rows of {len(names)} columns became {len(new_rows)} of {len(new_names)}"
    worst, where = 0.0, ""
    for number, (row, new_row) in enumerate(zip(rows, new_rows, strict=True), start=1):
        for name, old, new in zip(names, row, new_row, strict=True):
            if old == new:
                continue
            try:
                a, b = float(old), float(new)
            except ValueError:
                return "differs", f"{name}, row {number}: {old!r} became {new!r}"
            off = abs(a - b) / max(abs(a), abs(b), 1e-9)
            if off > worst or off != off:
                worst, where = off, f"{name}, row {number}: {old} became {new}"
    return ("equal" if worst <= 1e-6 else "differs"), where


def _pictures(before: Path, after: Path) -> tuple[str, str]:
    from PIL import Image

    old, new = (np.asarray(Image.open(path).convert("RGB"), np.int16) for path in (before, after))
    if old.shape != new.shape:
        return "differs", f"{old.shape[1]} × {old.shape[0]} pixels became {new.shape[1]} × {new.shape[0]}"
    return _pixels([np.abs(old - new)])


def _videos(before: Path, after: Path) -> tuple[str, str]:
    pairs = zip(_frames(before), _frames(after), strict=True)
    return _pixels([np.abs(old.astype(np.int16) - new) for old, new in pairs])


def _frames(path: Path) -> Iterator[np.ndarray]:
    import av

    with av.open(str(path)) as video:
        yield from (frame.to_ndarray(format="rgb24") for frame in video.decode(video=0))


def _pixels(differences: list[np.ndarray]) -> tuple[str, str]:
    changed = float(np.mean([(d.max(axis=2) > 0).mean() for d in differences]))
    largest = max(int(d.max()) for d in differences)
    verdict = "equal" if largest <= 1 else "differs"  # rounding of a colour
    return verdict, f"{changed:.2%} of the pixels, by up to {largest} of 255" if changed else "the same pixels"
