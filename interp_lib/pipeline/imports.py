"""What a notebook's results depend on in this package: the modules it imports, those they import, and so on."""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grimp

PACKAGE = Path(__file__).resolve().parent.parent


def dependencies(source: Path | str) -> list[Path]:
    """Files of the package that a notebook (.ipynb) or a module of the package depends on, itself left out.

    Imports are read, not run. Those inside functions count, since much here is imported where it is first needed;
    those for type checkers don't. Modules and data files of the package that a module names in a text count as well:
    that is how algorithms are looked up, and templates.

    Raises:
        grimp.exceptions.SourceSyntaxError: a module can't be parsed. Cells that are no plain Python (magics) are
            passed over.
    """
    source, graph = Path(source).resolve(), _graph()
    if source.suffix == ".ipynb":
        modules = {parent for name in _imported(source) for parent in _with_parents(name)} & graph.modules
    else:
        modules = {".".join(source.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")}
    modules = modules.union(*map(graph.find_upstream_modules, modules))
    files = {file for module in modules for file in (_file(module), *_data_files(module))}
    return sorted(files - {source})


@functools.cache
def _graph() -> grimp.ImportGraph:
    """Who imports whom; importing a module runs the packages above it, and one that is named in a text is looked up."""
    import grimp

    graph = grimp.build_graph(PACKAGE.name, exclude_type_checking_imports=True, cache_dir=None)
    for module in graph.modules:
        needed = {module.rpartition(".")[0], *_named(_file(module), module)} & graph.modules - {module}
        for other in needed:
            graph.add_import(importer=module, imported=other)
    return graph


def _named(file: Path, module: str) -> Iterator[str]:
    """Modules that one may name in a text: ``interp_lib.a.b``, in its own package ``.b``, and ``b:name`` of things."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for text in re.findall(r'"([\w.]+(?::\w+)?)"', file.read_text(encoding="utf-8")):
        name, colon, _ = text.partition(":")
        yield f"{package}.{name.lstrip('.')}" if colon or name.startswith(".") else name


def _imported(notebook: Path) -> Iterator[str]:
    """Dotted names of modules, or of things in them, that a notebook's cells import."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            try:
                nodes = list(ast.walk(ast.parse("".join(cell["source"]))))
            except SyntaxError:
                continue
            for node in nodes:
                if isinstance(node, ast.Import | ast.ImportFrom):
                    module = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                    yield from (".".join([*module, alias.name]) for alias in node.names)


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def _file(module: str) -> Path:
    place = PACKAGE.parent.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


@functools.cache
def _data() -> list[Path]:
    return [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]


def _data_files(module: str) -> list[Path]:
    """Data that a module names by its place in the package, or, a neighbour, by its name."""
    file = _file(module)
    text = file.read_text(encoding="utf-8")
    return [
        path
        for path in _data()
        if f'"{path.relative_to(PACKAGE).as_posix()}"' in text
        or (path.parent == file.parent and f'"{path.name}"' in text)
    ]
