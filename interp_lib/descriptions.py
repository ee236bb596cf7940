"""What people see in each cluster: ``descriptions.yml`` in the run folder, cluster number → sentence, edited by hand.

    0: Moves right, towards the gap in the next wall.
    3: Waits in front of a locked gate.

The seed's table of Ninja behaviours has this form. A description belongs to the weights it was written for: cluster
numbers mean something else after more training. It is no part of what a release's checksums cover.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InterpError
from .storage import write_text

if TYPE_CHECKING:
    from yaml import MappingNode

DESCRIPTIONS = "descriptions.yml"
HEADER = (
    "# What the agent does in each cluster, a line each:  number: sentence\n"
    "# Edit by hand or in the cluster browser; put sentences with a colon in quotes. Comments are kept.\n"
)


def read_descriptions(run_dir: Path | str, num_codes: int) -> dict[int, str]:
    """Descriptions of the clusters 0 … ``num_codes`` − 1 of a run, in order; clusters without a sentence are left out.

    A missing file gives {}; so does an entry without text (``3:``).

    Raises:
        InterpError: the file is damaged, names a cluster twice or one the agent doesn't have, or holds something that
            is no text.
    """
    path = Path(run_dir) / DESCRIPTIONS
    return _parse(_read(path), path, num_codes)


def write_description(run_dir: Path | str, k: int, text: str, num_codes: int) -> None:
    """Set the sentence of cluster ``k``, or remove it when ``text`` is empty; other entries and comments stay.

    Line breaks become spaces. The file is replaced atomically.

    Raises:
        InterpError: there is no such run folder or cluster, the file is damaged (it is then left as it is), or it can't
            be written.
    """
    import yaml

    run_dir, text = Path(run_dir), " ".join(text.split())
    if not run_dir.is_dir():
        raise InterpError(f"no run folder {run_dir} to keep a description in.")
    if not 0 <= k < num_codes:
        raise InterpError(f"there is no cluster {k}: this agent has 0 to {num_codes - 1}.")
    path = run_dir / DESCRIPTIONS
    old = _read(path)
    wanted = {**_parse(old, path, num_codes), k: text}
    wanted = {key: wanted[key] for key in sorted(wanted) if wanted[key]}
    root = yaml.compose(old, yaml.SafeLoader)
    new = None if root is None or root.flow_style else _splice(old, root, k, text)
    try:
        if new is not None and _parse(new, path, num_codes) != wanted:
            new = None
    except InterpError:
        new = None
    if new is None:  # a new file, or a form that can't be edited in place, such as {0: one line}
        header = old if root is None and old.strip() else HEADER
        new = header.rstrip("\n") + "\n" + "".join(_line(key, sentence) for key, sentence in wanted.items())
    write_text(path, new)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InterpError(f"cannot read {path}: {reason}. Mend or delete it.") from error


def _parse(source: str, path: Path, num_codes: int) -> dict[int, str]:
    import yaml

    try:
        root = yaml.compose(source, yaml.SafeLoader)
        found = yaml.safe_load(source)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise InterpError(f"{path}{where}: {reason}. Write `0: sentence`, in quotes if it has a colon.") from error
    if root is None:
        return {}
    if not isinstance(found, dict):
        raise InterpError(f"{path} holds no descriptions. Write a line for each cluster: `0: sentence`.")
    if len(found) < len(root.value):
        raise InterpError(f"{path} describes a cluster twice. Keep one line for each.")
    for k, text in found.items():
        if type(k) is not int or not 0 <= k < num_codes:
            raise InterpError(f"{path} describes cluster {k!r}: this agent has 0 to {num_codes - 1}.")
        if not isinstance(text, str | None):
            raise InterpError(f"{path}: the description of cluster {k} is no text ({text!r}). Put it in quotes.")
    return {k: " ".join(found[k].split()) for k in sorted(found) if found[k] and found[k].strip()}


def _splice(source: str, root: MappingNode, k: int, text: str) -> str:
    """``source`` with only the entry of cluster ``k`` changed, added in its place or removed."""
    after = len(source)  # where a new entry goes: before the first higher cluster
    for key, value in root.value:
        start, end = key.start_mark.index, value.end_mark.index
        if int(key.value) == k:
            end -= len(source[start:end]) - len(source[start:end].rstrip())
            line = _line(k, text).rstrip("\n") if text else ""
            rest = source[end:]
            return source[:start] + line + (rest if text else rest.partition("\n")[2])
        if int(key.value) > k:
            after = min(after, start)
    if not text:
        return source
    before = source[:after]
    return before + ("" if before.endswith("\n") or not before else "\n") + _line(k, text) + source[after:]


def _line(k: int, text: str) -> str:
    import yaml

    return yaml.safe_dump({k: text}, allow_unicode=True, width=float("inf"))
