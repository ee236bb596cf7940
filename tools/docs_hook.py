"""What mkdocs can't do by itself: pages from notebooks and from README.md, and formulas without a script.

- Every notebook becomes a page, with the outputs that are stored in it; its pictures become files.
- ``<!-- README: Two commands -->`` on a page is replaced by that section of README.md (``<!-- CONTRIBUTING.md -->`` by
  a whole file), so that each fact stands in one place.
- Formulas become MathML, which browsers draw themselves: MathJax and KaTeX would come from another host. Few systems
  have a font for it, so the site brings the glyphs it needs of STIX Two Math (SIL Open Font License).
"""

from __future__ import annotations

import base64
import html
import posixpath
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import latex2mathml.converter
import nbformat
from fontTools import subset
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
PICTURES = ROOT / "figures" / "readme"
MATH_FONT = "math.woff"  # docs/style.css names it
ITALIC = "ℎ" + "".join(map(chr, [*range(0x1D434, 0x1D468), *range(0x1D6FC, 0x1D71C)]))  # what <mi>x</mi> is drawn as

# What latex2mathml says differently from TeX.
_FINER = (
    (re.compile(r"<mo>(?=&#x02016;)"), '<mo stretchy="false">'),  # ‖x‖²: only the first bar would grow
    (re.compile(r"<mi>&#x0007E;</mi>"), "<mo>&#x0223C;</mo>"),  # a relation, with its space
    (re.compile(r"(<mi>[a-z]{2,}</mi>)(?!<mo|</)"), r'\1<mspace width="0.167em" />'),  # tanh u
    (re.compile(r"<msup>(<mo stretchy=.true.[^>]*>[^<]*</mo>)"), r"<msup><mrow>\1</mrow>"),  # grows as its partner does
)

_in_formulas: set[str] = set()


# Files beside README.md that are pages as they are.
WHOLE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the notebooks, their pictures, and those of README.md."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        page, pictures = notebook_page(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    for path in sorted(PICTURES.iterdir()):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put parts of README.md, and whole other files, where a page asks for them."""
    markdown = re.sub(r"<!-- README: (.+?) -->", lambda m: _from_root(readme_section(m[1]), page), markdown)
    for name in WHOLE:
        markdown = markdown.replace(f"<!-- {name} -->", _from_root((ROOT / name).read_text(encoding="utf-8"), page))
    return markdown


def on_page_content(html_text: str, **_: Any) -> str:
    """Draw formulas."""
    return re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', _mathml, html_text, flags=re.DOTALL)


def on_post_build(config: Any) -> None:
    """Leave the font of the formulas in the site."""
    options = subset.Options(flavor="woff", layout_features=["ssty"])  # ssty: the small forms in sub- and superscripts
    # Found, not imported: importing ziamath warns about its own use of importlib.resources.
    package = find_spec("ziamath")
    if package is None or package.origin is None:
        raise PluginError("no ziamath here, which has the font. Run `make install`.")
    font = subset.load_font(str(Path(package.origin).parent / "fonts" / "STIXTwoMath-Regular.ttf"), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(text=ITALIC + "".join(_in_formulas))
    subsetter.subset(font)
    subset.save_font(font, str(Path(config.site_dir) / MATH_FONT), options)


def readme_section(title: str) -> str:
    """The text of README.md below the heading ``title``, up to the next one; ``#`` is what comes before the first."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)\n", re.sub(r"\A# .+\n", "", text), flags=re.MULTILINE)
    sections = {"#": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}
    if title not in sections:
        raise PluginError(f"README.md has no section '{title}'. There are: {', '.join(sections)}.")
    return sections[title].strip()


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, with its stored outputs, and its pictures by name."""
    notebook = nbformat.read(path, as_version=4)
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    heading = path.stem
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for line in re.findall(r"^#+ (.+)", cell.source, flags=re.MULTILINE):
                heading = line
            parts.append(_loose_lists(cell.source))
            continue
        if cell.cell_type != "code":
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            parts += _output(output, path.stem, heading, pictures)
        if "parameters" in cell.metadata.get("tags", []):
            parts.append(
                f"This page shows the outputs stored in `notebooks/{path.name}`. Run it yourself: `make lab`, or "
                f"`interp reproduce --only {path.stem[:2]}`."
            )
    return "\n\n".join(parts) + "\n", pictures


def _output(output: Any, stem: str, heading: str, pictures: dict[str, bytes]) -> list[str]:
    if output.output_type == "stream":
        return [_text(output.text)]
    if output.output_type == "error":
        raise PluginError(f"{stem} holds the traceback of a failed cell ({output.ename}).")
    data = output.data
    if "image/png" in data:
        name = f"{stem}_{len(pictures) + 1}.png"
        pictures[name] = base64.b64decode(data["image/png"])
        return [f"![{html.escape(heading)}]({name}){{ loading=lazy }}"]
    if "<video" in data.get("text/html", ""):
        name = re.search(r'src="(?:\.\./)*([^"]+)"', data["text/html"])
        return [f'<p class="output-note">Running the notebook leaves a video here: <code>{name[1]}</code></p>']
    if "text/html" in data:
        table = re.sub(r"<style scoped>.*?</style>", "", data["text/html"], flags=re.DOTALL)
        table = re.sub(r"\n\s*", "\n", table).strip()
        return [f'<div class="output-table">\n{table}\n</div>']
    if any(kind.startswith("application/vnd.jupyter.widget") for kind in data):
        return []  # a progress bar
    return [_text(data.get("text/plain", ""))]


def _text(text: str) -> str:
    return f"```{{ .text .output .no-copy }}\n{text.rstrip()}\n```"


def _loose_lists(text: str) -> str:
    """Jupyter's Markdown begins a list anywhere, Python's after an empty line."""
    return re.sub(r"^(?!\s*[-*] )(.+)\n(?=[-*] )", r"\1\n\n", text, flags=re.MULTILINE)


def _from_root(text: str, page: Any) -> str:
    """Mend links that are relative to the repository's root: notebooks are pages here."""
    here = posixpath.dirname(page.file.src_uri)

    def mend(match: re.Match[str]) -> str:
        target = re.sub(r"\.ipynb$", ".md", match[1]).removeprefix("docs/")
        target = {**WHOLE, "README.md": "index.md"}.get(target, target)
        return f"]({posixpath.relpath(target, here) if here else target})"

    return re.sub(r"\]\((?!\w+:|#)([^)\s]+)\)", mend, text)


def _mathml(match: re.Match[str]) -> str:
    source = html.unescape(match[2]).strip()
    display = "block" if match[1] == "div" else "inline"
    formula = source[2:-2].strip()  # \( … \) or \[ … \]
    try:
        mathml = latex2mathml.converter.convert(formula, display=display)
    except Exception as error:  # the library has a dozen kinds
        raise PluginError(f"no MathML for {formula}: {error!r}") from error
    for pattern, better in _FINER:
        mathml = pattern.sub(better, mathml)
    _in_formulas.update(html.unescape(re.sub(r"<[^>]+>", "", mathml)))
    return mathml
