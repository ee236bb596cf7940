"""What people see in each cluster: ``descriptions.yml`` in the run folder, cluster number → sentence, edited by hand.

    0: Moves right, towards the gap in the next wall.
    3: Waits in front of a locked gate.

The seed's table of Ninja behaviours has this form. A description belongs to the weights it was written for: cluster
numbers mean something else after more training. It is no part of what a release's checksums cover.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import InterpError
from ..common.storage import read_file, write_text

if TYPE_CHECKING:
    from yaml import MappingNode, Node

_INT, _TEXT, _NOTHING = (f"tag:yaml.org,2002:{kind}" for kind in ("int", "str", "null"))
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
    if not os.path.lexists(path):
        return ""
    try:
        return read_file(path, 2**20).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InterpError(f"cannot read {path}: not UTF-8 text. Mend or delete it.") from error


def _parse(source: str, path: Path, num_codes: int) -> dict[int, str]:
    import yaml

    try:
        root = yaml.compose(source, yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise InterpError(f"{path}{where}: {reason}. Write `0: sentence`, in quotes if it has a colon.") from error
    except (RecursionError, ValueError, IndexError) as error:
        raise InterpError(f"{path} holds no descriptions. Write a line for each cluster: `0: sentence`.") from error
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise InterpError(f"{path} holds no descriptions. Write a line for each cluster: `0: sentence`.")
    found: dict[int, str] = {}
    for key, value in root.value:  # as written: to make dates or numbers of it could only fail
        k = int(key.value) if key.tag == _INT and re.fullmatch("[0-9]{1,9}", str(key.value)) else num_codes
        if not 0 <= k < num_codes:
            raise InterpError(f"{path} describes cluster {_shown(key)}: this agent has 0 to {num_codes - 1}.")
        if k in found:
            raise InterpError(f"{path} describes a cluster twice. Keep one line for each.")
        if value.tag not in (_TEXT, _NOTHING) or not isinstance(value.value, str):
            raise InterpError(f"{path}: the description of cluster {k} is no text ({_shown(value)}). Put it in quotes.")
        found[k] = " ".join(value.value.split()) if value.tag == _TEXT else ""
    return {k: found[k] for k in sorted(found) if found[k]}


def _shown(node: Node) -> str:
    if not isinstance(node.value, str):
        return "something nested"
    return f"{node.value!r:.40}" if node.tag == _TEXT else f"{node.value:.40}"


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
