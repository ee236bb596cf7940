"""What a notebook's results depend on in this package: the modules it imports, those they import, and so on."""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def dependencies(source: Path | str, package: Path = PACKAGE) -> list[Path]:
    """Files of ``package`` that a notebook (.ipynb) or a module of the package depends on, itself left out.

    Imports are read, not run. Those inside functions count, since much here is imported where it is first needed;
    those for type checkers don't. Modules and data files of the package that a module names in a text count as well:
    that is how algorithms are looked up, and templates.

    Raises:
        SyntaxError: a module can't be parsed. Cells that are no plain Python (magics) are passed over.
    """
    source = Path(source).resolve()
    if source.suffix == ".ipynb":
        first = frozenset(module for tree in _cells(source) for module in _imported(tree, package.name))
    else:
        first = _of_module(source, package)
    found: set[Path] = set()
    waiting = [file for module in first for file in _files(module, package)]
    waiting += _data_files(source, package) if source.suffix == ".py" else ()
    while waiting:
        file = waiting.pop()
        if file in found or file == source:
            continue
        found.add(file)
        if file.suffix == ".py":
            waiting += [f for module in _of_module(file, package) for f in _files(module, package)]
            waiting += _data_files(file, package)
    return sorted(found)


def _cells(notebook: Path) -> Iterator[ast.AST]:
    # Read as JSON: nbformat takes a second to import, and a plan is made at every start.
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            try:
                yield ast.parse("".join(cell["source"]))
            except SyntaxError:
                continue


@functools.cache
def _tree(file: Path) -> ast.AST:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


@functools.cache
def _of_module(file: Path, package: Path) -> frozenset[str]:
    base = file.relative_to(package.parent).parent.parts
    named = {text for text in _texts(file) if text.startswith(f"{package.name}.")}
    named |= {".".join(base) + text for text in _texts(file) if re.fullmatch(r"\.\w+", text)}
    return frozenset({*_imported(_tree(file), package.name, base), *named})


def _imported(tree: ast.AST, name: str, base: tuple[str, ...] = ()) -> Iterator[str]:
    """Dotted names of modules of the package, or of things in them, that ``tree`` imports."""
    for node in _running(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == name)
        elif isinstance(node, ast.ImportFrom):
            start = base[: len(base) - node.level + 1] if node.level else ()
            module = ".".join([*start, *([node.module] if node.module else [])])
            if module.split(".")[0] == name:
                yield from (f"{module}.{alias.name}" for alias in node.names)


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below ``if TYPE_CHECKING``."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def _files(module: str, package: Path) -> Iterable[Path]:
    """The file of a dotted name, and the __init__ of every package above it, which importing it runs."""
    parts = module.split(".")[1:]
    yield package / "__init__.py"
    for depth in range(1, len(parts) + 1):
        place = package.joinpath(*parts[:depth])
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file():
                yield file


@functools.cache
def _texts(file: Path) -> frozenset[str]:
    nodes = ast.walk(_tree(file))
    return frozenset(n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))


@functools.cache
def _data_files(file: Path, package: Path) -> tuple[Path, ...]:
    """Data that a module names by its place in the package, or, a neighbour, by its name."""
    data = [p for p in package.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    names = {p: {p.relative_to(package).as_posix(), *([p.name] if p.parent == file.parent else [])} for p in data}
    return tuple(p for p in data if names[p] & _texts(file))
