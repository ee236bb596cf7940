"""What people see in each cluster: ``descriptions.yml`` in the run folder, cluster number → sentence, edited by hand.

    0: Moves right, towards the gap in the next wall.
    3: Waits in front of a locked gate.

The seed's table of Ninja behaviours has this form. A description belongs to the weights it was written for: cluster
numbers mean something else after more training. It is no part of what a release's checksums cover.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import InterpError
from ..common.storage import read_file, write_text

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

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
    run_dir, text = Path(run_dir), " ".join(text.split())
    if not run_dir.is_dir():
        raise InterpError(f"no run folder {run_dir} to keep a description in.")
    if not 0 <= k < num_codes:
        raise InterpError(f"there is no cluster {k}: this agent has 0 to {num_codes - 1}.")
    path = run_dir / DESCRIPTIONS
    old = _read(path)
    wanted = {**_parse(old, path, num_codes), k: text}
    new = _edited(old, k, text)
    if _parse(new, path, num_codes) != {key: wanted[key] for key in sorted(wanted) if wanted[key]}:
        raise InterpError(f"{path} can't be edited without losing what is in it. Write `{k}: sentence` by hand.")
    write_text(path, new)


def _read(path: Path) -> str:
    if not os.path.lexists(path):
        return ""
    try:
        return read_file(path, 2**20).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InterpError(f"cannot read {path}: not UTF-8 text. Mend or delete it.") from error


def _parse(source: str, path: Path, num_codes: int) -> dict[int, str]:
    from ruamel.yaml import YAML, MappingNode
    from ruamel.yaml.error import YAMLError

    try:
        root = YAML(typ="safe", pure=True).compose(source)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise InterpError(f"{path}{where}: {reason}. Write `0: sentence`, in quotes if it has a colon.") from error
    except (RecursionError, ValueError, IndexError, AttributeError) as error:
        raise InterpError(f"{path} holds no descriptions. Write a line for each cluster: `0: sentence`.") from error
    if root is None:
        return {}
    if not isinstance(root, MappingNode):
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


def _edited(source: str, k: int, text: str) -> str:
    """``source`` with the sentence of cluster ``k`` changed, added in its place or removed, and its comments kept."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.scalarstring import FoldedScalarString, LiteralScalarString, PlainScalarString

    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 2**20
    document, header = yaml.load(source), ""
    if document is None:
        document, header = CommentedMap(), source if source.strip() else HEADER
    comments = document.ca.items.get(k)
    if k in document and text:
        if comments and comments[2]:  # what stands beside the sentence stays as far from it
            comments[2].start_mark.column += len(text) - len(document[k] or "")
            if isinstance(document[k], FoldedScalarString | LiteralScalarString):  # these end with their own line
                comments[2].value = "\n" + comments[2].value
        document[k] = PlainScalarString(text)
    elif text:
        document.insert(sum(key < k for key in document), k, text)
    elif k in document and (comments or len(document) == 1):
        document[k] = None  # its line holds the comments
    else:
        document.pop(k, None)
    if not document:
        return header
    target = io.StringIO()
    yaml.dump(document, target)
    return header.rstrip("\n") + "\n" * bool(header) + target.getvalue()
