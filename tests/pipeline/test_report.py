"""The report page: what is in it, that nothing in it is markup by accident, and that it stands on its own."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas
import pytest
from conftest import Lazy

from interp_lib.common.errors import InterpError
from interp_lib.common.outputs import Outputs
from interp_lib.common.storage import write_json
from interp_lib.pipeline.report import build_report, export_html
from interp_lib.pipeline.tables import MAX_ROWS, load_table

nbformat = Lazy("nbformat")

ATTACK = "<script>alert('caption')</script> & \"quotes\""


class Page(HTMLParser):
    """Collects elements as (tag, attributes) and the visible text."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self._hidden = 0
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag):
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._hidden:
            self.text += data

    def all(self, tag: str, **wanted) -> list[dict]:
        return [a for t, a in self.elements if t == tag and all(a.get(k) == v for k, v in wanted.items())]


@pytest.fixture()
def figures(tmp_path) -> Path:
    """Two notebooks' outputs: 02 was made first, has all kinds and an executed copy; 01 failed."""
    run = tmp_path / "checkpoints" / "sppo-ninja-s2021"
    run.mkdir(parents=True)
    (run / "card.md").write_text(
        "# sppo\n\n| levels | return |\n|---|---|\n| unseen | 4.1 |\n\n<img src=x onerror=alert(1)>\n"
    )
    folder = tmp_path / "figures"
    frame = np.zeros((8, 12, 3), np.uint8)

    outputs = Outputs(folder, "02_evaluate", parameters={"profile": "quick", "env": "ninja"})
    outputs.video([frame] * 3, "clip", "A cluster.", [run])
    outputs.image(frame, "state", ATTACK, [run, "ppo-ninja-s2021"])
    table = pandas.DataFrame({"method": ["sppo", "<b>ppo</b>"], "return": [4.123456, np.nan], "n": [100, 20]})
    outputs.table(table, "returns", "Returns.", [run])
    Outputs(folder, "01_train").image(frame, "first", "From the failed one.")

    executed = folder / "executed"
    write_json(
        executed / "02_evaluate.result.json", {"name": "02_evaluate", "status": "done", "seconds": 34.2, "error": None}
    )
    error = {"exception": "ValueError", "message": "<b>bad</b>", "cell": 4}
    write_json(
        executed / "01_train.result.json", {"name": "01_train", "status": "failed", "seconds": 2.0, "error": error}
    )
    notebook = nbformat.v4.new_notebook()
    opening = "# Does it *generalise*?\n\nUnseen levels,\nwith **intervals**.\n\nMore."
    notebook.cells = [
        nbformat.v4.new_markdown_cell("failed here", metadata={"tags": ["papermill-error-cell-tag"]}),
        nbformat.v4.new_markdown_cell(opening),
        nbformat.v4.new_code_cell("x = 1"),
    ]
    nbformat.write(notebook, executed / "02_evaluate.ipynb")
    export_html(executed / "02_evaluate.ipynb")
    return folder


def test_every_output_is_there_with_caption_number_and_source(figures):
    page = Page(build_report(figures))
    for label in ("Image 1.1.", "Video 2.1.", "Image 2.1.", "Table 2.1."):
        assert label in page.text
    assert page.text.index("From the failed one.") < page.text.index("A cluster.") < page.text.index("Returns.")
    (video,) = page.all("video")
    assert video["src"] == "02_evaluate/clip.mp4" and video["poster"] == "02_evaluate/clip.poster.png"
    assert {"controls", "muted", "loop", "playsinline"} <= video.keys() and video["preload"] == "metadata"
    assert page.all("a", href="#run-sppo-ninja-s2021") and page.all("details", id="run-ppo-ninja-s2021")
    for value in ("ninja", "quick", "done in 34 s", "This run has no card."):
        assert value in page.text


def test_captions_cells_cards_and_errors_are_text_never_markup(figures):
    page = Page(build_report(figures))
    assert ATTACK in page.text  # shown as it was written
    assert page.all("img", alt=ATTACK)
    assert "<b>ppo</b>" in page.text and "In [4] ValueError: <b>bad</b>" in page.text
    assert "alert('caption')" not in "".join(
        part.split("</script>")[0] for part in (figures / "index.html").read_text().split("<script")[1:]
    )
    assert not [a for _, a in page.elements if "onerror" in a]
    assert len(page.all("script")) == 1


def test_the_page_asks_nothing_of_other_hosts_and_its_links_lead_somewhere(figures):
    page = Page(build_report(figures))
    ids = {a["id"] for _, a in page.elements if "id" in a}
    for tag, attributes in page.elements:
        for name in ("src", "href", "poster"):
            link = attributes.get(name, "")
            if not link or link == "data:,":
                continue
            if link.startswith("http"):
                assert tag == "a", f"{tag} would fetch {link}"
            elif link.startswith("#"):
                assert link[1:] in ids, link
            else:
                assert (figures / unquote(link.split("#")[0])).is_file(), link
    style = (figures / "index.html").read_text().split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_a_section_tells_what_its_notebook_asks_and_how_it_went(figures):
    page = Page(build_report(figures))
    assert "Does it generalise?" in page.text
    assert "Unseen levels, with intervals." in page.text
    assert "This notebook failed." in page.text
    assert page.all("a", href="executed/02_evaluate.html")


def test_what_can_be_explored_is_linked_and_what_made_an_output_is_told(figures):
    outputs = Outputs(figures, "03_embed", parameters={"profile": "quick"})
    outputs.image(np.zeros((8, 12, 3), np.uint8), "map", "A map.", ["sppo-ninja-s2021", "ppo-ninja-s2021"])
    explored = {"runs": [{"algorithms": ["sppo"], "env": "env", "seed": 0, "explored": True}]}
    nbformat.write(nbformat.v4.new_notebook(metadata={"interp": explored}), figures / "executed" / "03_embed.ipynb")
    (figures / "explorers").mkdir()
    (figures / "explorers" / "sppo-ninja-s2021.html").write_text("<p>states</p>")
    hardware = {"cpu": "Some CPU", "cores": 2, "gpu": None}
    git = {"revision": "0123456789abcdef", "dirty": True}
    made = {"03_embed": {"git": git, "hardware": hardware, "date": "2026-01-02T03:04:05+00:00"}}
    write_json(figures / "manifest.json", {"outputs": {}, "made": made})
    page = Page(build_report(figures))
    assert len(page.all("a", href="explorers/sppo-ninja-s2021.html")) == 3  # header, section 3 (not 2), run card
    assert "Explore the clusters of sppo-ninja-s2021" in page.text and page.all("a", href="manifest.json")
    assert "2026-01-02 03:04 UTC, on 2 cores of Some CPU" in page.text
    assert "0123456789ab, with uncommitted changes" in page.text


def test_published_numbers_have_an_entry_of_their_own(figures):
    table = pandas.DataFrame({"game": ["ninja"], "here": [3.1], "published mean": [3.0]})
    Outputs(figures, "02_evaluate").table(table, "published_and_here_table", "Published and here.")
    page = Page(build_report(figures))
    assert page.all("a", href="#02_evaluate-published_and_here_table")


def test_run_cards_are_rendered(figures):
    page = Page(build_report(figures))
    card = page.text[page.text.index("Training runs", page.text.index("Returns.")) :]
    assert "unseen" in card and "4.1" in card
    assert "<img src=x onerror=alert(1)>" in page.text


def test_the_same_folder_gives_the_same_page(figures):
    first = build_report(figures).read_bytes()
    assert build_report(figures).read_bytes() == first


def test_executed_notebooks_show_before_anything_is_fetched(figures):
    page = Page(figures / "executed" / "02_evaluate.html")
    remote = [a for a in page.all("script") if a.get("src", "").startswith("http")]
    assert all("async" in a for a in remote)
    assert "x = 1" in page.text


def test_an_empty_folder_gives_a_page_that_says_so(tmp_path):
    assert "No outputs yet" in Page(build_report(tmp_path)).text


def test_a_missing_picture_is_named(figures):
    (figures / "02_evaluate" / "state.png").unlink()
    with pytest.raises(InterpError, match="state.png is missing"):
        build_report(figures)


def test_numbers_line_up_and_sort_by_their_full_value(tmp_path):
    frame = pandas.DataFrame(
        {
            "game": ["Ninja", "coinrun", None],
            "return": [4.123456, -17.5, np.nan],
            "p": [0.04, 0.00012, 0.5],
            "steps": [25_000_000, 1, 0],
        }
    )
    table = load_table(Outputs(tmp_path, "n").table(frame, "t", ""))
    assert table.columns == [("game", False), ("return", True), ("p", True), ("steps", True)]
    shown = [[cell.text for cell in row] for row in table.rows]
    assert shown == [
        ["Ninja", "4.12", "0.04", "25,000,000"],
        ["coinrun", "-17.50", "0.00012", "1"],
        ["–", "–", "0.5", "0"],
    ]
    assert [row[1].key for row in table.rows] == [4.123456, -17.5, float("-inf")]
    assert table.rows[0][0].key == "ninja"


@pytest.mark.parametrize("gap", [" ", "_"])
def test_an_interval_shares_the_column_of_its_quantity_and_seeds_are_names(gap, tmp_path):
    frame = pandas.DataFrame(
        {
            "seed": [2021, 2022],
            "steps": [2021, 25_000],
            "return": [8.5, np.nan],
            f"return{gap}low": [7.25, np.nan],
            f"return{gap}high": [9, np.nan],
            "low": [1.0, 2.0],
        }
    )
    table = load_table(Outputs(tmp_path, "n").table(frame, "t", ""))
    assert table.columns == [("seed", True), ("steps", True), ("return", True), ("low", True)]
    assert [cell.text for cell in table.rows[0]] == ["2021", "2,021", "8.50 [7.25, 9.00]", "1"]
    assert [cell.text for cell in table.rows[1]] == ["2022", "25,000", "–", "2"]
    assert table.rows[0][2].key == 8.5


def test_a_long_table_is_cut_and_says_where_the_rest_is(tmp_path):
    Outputs(tmp_path, "n").table(pandas.DataFrame({"i": range(MAX_ROWS + 50)}), "t", "Long.")
    page = Page(build_report(tmp_path))
    assert len(page.all("td")) == MAX_ROWS
    assert f"The first {MAX_ROWS} of {MAX_ROWS + 50} rows" in page.text
