"""The documentation: it builds without a network, its pages are complete, and the commands it shows exist."""

import functools
import html
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler

import pytest
import yaml
from conftest import ROOT
from fake_hub import QuietServer
from in_chromium import needs_chromium, running_chromium

from interp_lib.cli import build_parser
from interp_lib.runs.folder import find_runs

DOCS = ROOT / "docs"
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]


# -- what is written ------------------------------------------------------------------------------------------------


def nav_pages(entries):
    for entry in entries:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from nav_pages(value) if isinstance(value, list) else [value]


def test_every_page_and_notebook_is_in_the_navigation():
    nav = list(nav_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert len(nav) == len(set(nav))
    written = {path.relative_to(DOCS).as_posix() for path in PAGES}
    assert set(nav) == written | {f"notebooks/{name}.md" for name in NOTEBOOKS}


def test_what_a_page_takes_over_from_readme_is_there():
    titles = {"#", *re.findall(r"^## (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)}
    wanted = {title for path in PAGES for title in re.findall(r"<!-- README: (.+?) -->", path.read_text())}
    assert wanted and wanted <= titles


PROMPT = r"\s*(srun( --\S+)* )?(\.venv/bin/)?"
INTERP = r"(?:interp|torchrun .* -m interp_lib\.cli) (.+)"
VARIABLES = {"algorithm": "sppo", "resume": "--resume"}  # of the shell scripts shown; the others hold numbers


def in_blocks(text):
    """The lines of code blocks, without a prompt before them; continued lines are joined."""
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from (re.sub(PROMPT, "", line, count=1) for line in re.sub(r"\\\n\s*", " ", block).splitlines())


def in_sentences(text):
    """What stands between backticks elsewhere."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def parses(arguments):
    try:
        build_parser().parse_args(arguments)
    except SystemExit as stop:
        return stop.code == 0  # --help
    return True


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_interp_command_shown_is_one(path, capsys):
    text = path.read_text()
    for command, block in [(c, True) for c in in_blocks(text)] + [(c, False) for c in in_sentences(text)]:
        match = re.fullmatch(INTERP, command)
        if match is None or command == "interp COMMAND --help":
            continue
        line = re.sub(r"\$\{?(\w+)\}?", lambda m: VARIABLES.get(m[1], "1"), match[1])
        arguments = shlex.split(line, comments=True)
        # In a sentence a command may be named without what it needs, as in: `interp embed`.
        named = not block and all(re.fullmatch(r"[a-z-]+", a) for a in arguments) and parses([*arguments, "--help"])
        assert parses(arguments) or named, f"{command}\n{capsys.readouterr().err}"


def test_every_make_target_shown_is_one():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in TEXTS:
        text = path.read_text()
        lines = [*in_blocks(text), *in_sentences(text)]
        shown = {match[1] for line in lines if (match := re.match(r"make ([a-z-]+)", line))}
        assert shown <= targets, path.name


def test_readmes_numbers_of_the_released_agents_are_their_cards(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    readme_tables = importlib.import_module("readme_tables")
    shown = readme_tables.PLACE.findall((ROOT / "README.md").read_text("utf-8"))
    assert shown == [readme_tables.tables(find_runs(ROOT / "checkpoints"))], "run tools/readme_tables.py"


# -- what is built --------------------------------------------------------------------------------------------------

# A name that is looked up or a connection that is opened ends the build.
BUILD = """
import socket, sys
def refuse(*arguments, **options):
    raise OSError(f"the documentation asked the network for {arguments}")
socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
from mkdocs.__main__ import cli
cli(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as `make docs` builds it: about 10 seconds on an idle core."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-c", BUILD, "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Loaded(HTMLParser):
    """What a browser fetches by itself to show a page."""

    def __init__(self, page):
        super().__init__()
        self.addresses = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "link" and attributes.get("rel") not in ("canonical", "prev", "next"):
            self.addresses.append(attributes.get("href", ""))
        if tag in ("script", "img", "iframe", "video", "audio", "source", "embed"):
            self.addresses += [attributes[name] for name in ("src", "srcset", "poster") if attributes.get(name)]


def test_no_page_asks_another_host(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        for address in Loaded(page.read_text()).addresses:
            assert not re.match(r"\w+:|//", address) or address.startswith("data:"), f"{page.name}: {address}"
            local = address.partition("?")[0].partition("#")[0]
            if page.name != "404.html" and not address.startswith("data:"):
                assert (page.parent / local).exists(), f"{page.name}: {address} is not there"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", sheet.read_text()), sheet.name


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_notebook_is_shown_with_its_outputs(site, name):
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    page = (site / "notebooks" / f"{name}.html").read_text()
    assert pictures and page.count(f'src="{name}_') == pictures == len(list((site / "notebooks").glob(f"{name}_*.png")))
    assert page.count('class="output-table"') == sum(
        "<table" in "".join(o.get("data", {}).get("text/html", "")) for o in outputs
    )
    for output in outputs:
        for line in "".join(output.get("text", "")).splitlines():
            assert html.escape(line.strip(), quote=False) in page
    formulas = any("$" in "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    assert ("<math" in page) == formulas
    assert "arithmatex" not in page and "$$" not in page


def test_docstrings_are_in_the_reference(site):
    def text(page):
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", (site / "api" / page).read_text()))

    assert "Soft actor-critic that acts by comparing states with prototypes" in text("agents.html")
    assert "Return the short name of a continuous task given its short name" in text("environments.html")
    assert "Trains and releases the targets" in text("runs.html")
    assert ":class:" not in text("agents.html")  # Sphinx's notation


def test_parts_of_readme_are_in_the_pages_with_links_that_work(site):
    page = (site / "index.html").read_text()
    assert "interp doctor" in page and 'href="notebooks/01_train.html"' in page and "<!-- README" not in page
    agents = (site / "agents.html").read_text()
    assert "<td" in agents and "FruitBot" in agents and "interp checkpoints list" in agents


@pytest.mark.browser
@needs_chromium
def test_a_browser_stays_on_this_host_and_lays_formulas_out(site):
    handler = functools.partial(QuietHandler, directory=site)
    with QuietServer(("127.0.0.1", 0), handler) as server, running_chromium() as browser:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        page = browser.new_page(viewport={"width": 390, "height": 800})
        asked, problems = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        for name in ("index.html", "faq.html", "api/agents.html", f"notebooks/{NOTEBOOKS[0]}.html"):
            page.goto(address + name, wait_until="networkidle")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, f"{name} is too wide for a phone"
        assert page.locator("math[display=block]").first.bounding_box()["height"] > 30
        server.shutdown()
    assert problems == [] and {url for url in asked if not url.startswith((address, "data:", "blob:"))} == set()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass
