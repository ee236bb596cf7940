"""Docstrings as Markdown: a griffe extension that mkdocs.yml names.

They are written for people who read the source: Sphinx's roles become plain names, and examples (>>> …) code blocks.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?\.*([^`]+)`")
_EXAMPLE = re.compile(r"(?:^[ ]*>>> .*\n?)+", re.MULTILINE)


class PlainDocstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)


def plain(text: str) -> str:
    """``text`` without Sphinx's notation."""
    return _EXAMPLE.sub(_code_block, _ROLE.sub(r"``\1``", text))


def _code_block(match: re.Match[str]) -> str:
    lines = [line.strip().removeprefix(">>> ") for line in match[0].splitlines()]
    return "\n".join(["```python", *lines, "```", ""])
