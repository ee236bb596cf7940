"""The page that shows everything: ``figures/index.html``, built from sidecars, executed notebooks and the manifest.

The page makes no request to another host: one HTML file and relative links to what lies beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import quote

from ..common.errors import InterpError
from ..common.outputs import Output, saved_outputs
from ..common.storage import read_json, write_text
from .manifest import MANIFEST
from .notebooks import declared_needs
from .runner import NotebookError
from .tables import MAX_ROWS, Table, load_table

KINDS = ("figure", "image", "video", "table")
PUBLISHED = "published_and_here_table"  # the table that holds every published number beside the one here
FIRST_ROWS = 6  # of a longer table, before it is unfolded
# What is laid out together, pictures before what they rest on.
GROUPS = {"figures": ("figure",), "tiles": ("video", "image"), "tables": ("table",)}


class Item(NamedTuple):
    """An output with its number in the page ("Figure 2.1") and the links to its files, the main one first."""

    output: Output
    label: str
    anchor: str
    links: dict[str, str]
    poster: str | None
    table: Table | None

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.output.width / self.output.height if self.output.height else 1.0


class Explorer(NamedTuple):
    """A page on which a run's clusters or prototypes can be explored."""

    run: str
    link: str

    @property
    def what(self) -> str:
        """What there is to explore."""
        return "prototypes" if self.run.startswith("protosac-") else "clusters"


def build_report(figures_dir: Path | str) -> Path:
    """Write ``<figures_dir>/index.html`` from the sidecars, run cards, executed notebooks and manifest found there.

    The same folder gives the same page, byte for byte.

    Raises:
        InterpError: a sidecar is damaged, an output's file is missing, or the page can't be written.
    """
    import jinja2

    figures_dir = Path(figures_dir)
    explorers = _explorers(figures_dir)
    sections = _sections(figures_dir, explorers)
    items = [item for section in sections for item in section.items]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # captions and run names are data, never markup
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("report.html.j2").render(
        sections=sections,
        runs=_runs(figures_dir, items, explorers),
        explorers=list(explorers.values()),
        environments=sorted(page.parent.name for page in figures_dir.glob("*/index.html")),
        published=next((item.anchor for item in items if item.output.name == PUBLISHED), None),
        manifest=_link(figures_dir, figures_dir / MANIFEST),
        counts={kind: sum(item.output.kind == kind for item in items) for kind in KINDS},
        columns=_columns,
        max_rows=MAX_ROWS,
        first_rows=FIRST_ROWS,
    )
    write_text(figures_dir / "index.html", page)
    return figures_dir / "index.html"


def export_html(executed: Path) -> Path:
    """Write an executed notebook as HTML beside it, readable without Jupyter.

    Formulas are drawn by MathJax from its usual address when the reader is online, and stay LaTeX when not.
    """
    from nbconvert.exporters import HTMLExporter

    template = (Path(__file__).parent / "notebook.html.j2").read_text(encoding="utf-8")
    exporter = HTMLExporter(raw_template=template)
    page, _ = exporter.from_filename(str(executed), resources={"metadata": {"name": executed.stem}})
    write_text(executed.with_suffix(".html"), page)
    return executed.with_suffix(".html")


def _explorers(figures_dir: Path) -> dict[str, Explorer]:
    pages = sorted((figures_dir / "explorers").glob("*.html"))
    return {page.stem: Explorer(page.stem, quote(f"explorers/{page.name}")) for page in pages}


def _made(figures_dir: Path) -> dict[str, dict[str, str]]:
    """By what each notebook's outputs were made, in words, as the manifest tells."""
    path = figures_dir / MANIFEST
    found = {}
    for name, made in (read_json(path)["made"] if path.is_file() else {}).items():
        git, hardware = made["git"], made["hardware"]
        parts = [f"{hardware['cores']} cores of {hardware['cpu']}", hardware["gpu"]]
        found[name] = {
            "date": made["date"].replace("T", " ")[:16] + " UTC",
            "revision": (git["revision"] or "unknown")[:12] + (", with uncommitted changes" if git["dirty"] else ""),
            "hardware": ", ".join(filter(None, parts)),
        }
    return found


def _sections(figures_dir: Path, explorers: Mapping[str, Explorer]) -> list[SimpleNamespace]:
    """One for each notebook: what it says about itself, how its run went, and its outputs."""
    made = _made(figures_dir)
    outputs = saved_outputs(figures_dir)
    executed = figures_dir / "executed"
    ran = {path.name.removesuffix(".result.json") for path in executed.glob("*.result.json")}
    sections = []
    for name in sorted({*outputs, *ran}):
        result = _result(executed / f"{name}.result.json") if name in ran else {}
        title, introduction = _self_description(executed / f"{name}.ipynb")
        number = name.split("_")[0].lstrip("0") or name
        items = _items(figures_dir, outputs.get(name, []), number if number.isdigit() else name)
        used = dict.fromkeys(run.name for item in items for run in item.output.runs)
        groups = {layout: [item for item in items if item.output.kind in of] for layout, of in GROUPS.items()}
        sections.append(
            SimpleNamespace(
                name=name,
                title=title or name.replace("_", " "),
                introduction=introduction,
                items=items,
                groups=[(layout, shown) for layout, shown in groups.items() if shown],
                videos=sum(item.output.kind == "video" for item in items),
                parameters=items[0].output.parameters if items else {},
                notebook=_link(figures_dir, executed / f"{name}.ipynb"),
                page=_link(figures_dir, executed / f"{name}.html"),
                status=result.get("status"),
                seconds=result.get("seconds", 0.0),
                error=str(NotebookError(**result["error"])) if result.get("error") else None,
                made=made.get(name),
                explorers=[explorers[run] for run in used if run in explorers and _explores(name, executed)],
            )
        )
    return sections


def _explores(name: str, executed: Path) -> bool:
    """Whether a notebook is about what can be explored; others show the same runs for other reasons."""
    needs = declared_needs(executed / f"{name}.ipynb") or {}
    return any(use.get("explored") for use in needs.get("runs", ()))


def _result(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise InterpError(f"{path} is damaged. Run its notebook again.")
    return value


def _self_description(notebook: Path) -> tuple[str, str]:
    """Title and first paragraph, as inline HTML, of a notebook's opening cell."""
    import mistune
    import nbformat

    if not notebook.is_file():
        return "", ""
    for cell in nbformat.read(notebook, as_version=4).cells:
        if "papermill-error-cell-tag" in cell.metadata.get("tags", ()):
            continue
        if cell.cell_type != "markdown":
            break
        tokens = mistune.create_markdown(renderer="ast", plugins=["table"])(cell.source)
        kinds = [token["type"] for token in tokens]
        if "heading" not in kinds:
            break
        heading = tokens[kinds.index("heading")]
        title = "".join(_plain(child) for child in heading["children"])
        rest = [token for token in tokens[kinds.index("heading") + 1 :] if token["type"] != "blank_line"]
        if not rest or rest[0]["type"] != "paragraph":
            return title, ""
        return title, "".join(_plain(child) for child in rest[0]["children"])
    return "", ""


def _plain(token: dict[str, Any]) -> str:
    """Text of a markdown token without its markup."""
    if token["type"] in ("softbreak", "linebreak"):
        return " "
    return token.get("raw") or "".join(_plain(child) for child in token.get("children", ()))


def _items(figures_dir: Path, outputs: Iterable[Output], section: str) -> list[Item]:
    numbers = {kind: itertools.count(1) for kind in KINDS}
    items = []
    for output in outputs:
        label = f"{output.kind.capitalize()} {section}.{next(numbers[output.kind])}"
        links = {file: f"{quote(output.notebook)}/{quote(file)}" for file in output.files}
        poster = next((links.pop(file) for file in list(links) if file.endswith(".poster.png")), None)
        table = load_table(figures_dir / output.notebook / output.file) if output.kind == "table" else None
        items.append(Item(output, label, f"{output.notebook}-{output.name}", links, poster, table))
    return items


def _columns(tiles: int) -> int:
    """Columns on a wide page: full rows if possible, never so few that a tile fills the screen."""
    return next((columns for columns in (4, 3, 5, 6) if tiles % columns == 0), 4)


def _link(figures_dir: Path, path: Path) -> str | None:
    return quote(path.relative_to(figures_dir).as_posix()) if path.is_file() else None


def _runs(figures_dir: Path, items: list[Item], explorers: Mapping[str, Explorer]) -> list[dict[str, Any]]:
    """Every run that something on the page was made from, by name, with its card as HTML (None: it has none)."""
    used: dict[str, list[Item]] = {}
    folders: dict[str, str] = {}
    for item in items:
        for run in item.output.runs:
            used.setdefault(run.name, []).append(item)
            if run.folder is not None:
                folders[run.name] = run.folder
    return [
        {
            "name": name,
            "card": _card(figures_dir / folders[name] / "card.md") if name in folders else None,
            "used_by": used[name],
            "explorer": explorers.get(name),
        }
        for name in sorted(used)
    ]


def _card(path: Path) -> str | None:
    import mistune

    if not path.is_file():
        return None
    # The run's name heads the card already.
    lines = path.read_text(encoding="utf-8").strip().splitlines()
    text = "\n".join(lines[1:] if lines and lines[0].startswith("# ") else lines)
    return mistune.create_markdown(escape=True, plugins=["table"])(text)
