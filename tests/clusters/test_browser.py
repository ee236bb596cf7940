"""Browsing clusters: what is said about states, the notebook widget and the static page, both in a real Chromium."""

import base64
import json
import re
import shutil

import numpy as np
import pytest
from conftest import ROOT
from in_chromium import needs_chromium, open_notebook, running_chromium, running_lab

from interp_lib.cli import main
from interp_lib.clusters.collect import collect_states, open_states
from interp_lib.clusters.descriptions import read_descriptions, write_description
from interp_lib.clusters.states import episode_rows, episode_steps
from interp_lib.clusters.study import ClusterStudy
from interp_lib.common.errors import InterpError
from interp_lib.common.style import readable_ink
from interp_lib.runs.folder import load_agent

RELEASED = ROOT / "checkpoints" / "sppo-fruitbot-s2021"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A copy of the released agent, because descriptions are written into its folder."""
    folder = tmp_path_factory.mktemp("runs") / RELEASED.name
    shutil.copytree(RELEASED, folder, ignore=shutil.ignore_patterns("descriptions.yml"))
    return folder


@pytest.fixture(scope="module")
def agent(run_dir):
    return load_agent(run_dir, device="cpu")


@pytest.fixture(scope="module")
def states(agent, tmp_path_factory):
    path = tmp_path_factory.mktemp("states") / "states.h5"
    return collect_states(agent, path, steps=40, num_envs=16, progress=False)


@pytest.fixture(scope="module")
def study(agent, states):
    return ClusterStudy(agent, states).checked()


# -- what is said about states ----------------------------------------------------------------------------------------


def test_episodes_are_found_around_any_state(states):
    steps, n = episode_steps(states), states.meta["num_envs"]
    for row in range(0, len(states), 7):
        episode = episode_rows(states, row)
        assert row in episode and set(episode % n) == {row % n}
        assert (np.diff(episode) == n).all() and len(np.unique(states.level[episode])) == 1
        assert (steps[episode] == np.arange(len(episode))).all()
        assert not states.done[episode[:-1]].any()
        assert states.done[episode[-1]] or episode[-1] >= len(states) - n


def test_probabilities_come_from_stored_features_as_from_frames(agent, states, study):
    rows = np.arange(0, len(states), 20)
    logits = agent.embed(states.frames(rows)).logits.astype(np.float64)
    wanted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(study.policy[rows], wanted, atol=1e-5)


def test_clips_stay_in_their_cluster_and_episode(states, study):
    for k in range(states.num_codes):
        clips = study.cluster_clips(k)
        assert bool(clips) == (k in states.code)
        for clip in clips:
            assert (states.code[clip] == k).all() and len(clip) <= 20
            assert set(clip) <= set(episode_rows(states, clip[0]))
    region = np.flatnonzero(states.fdr[:, 0] > 0)
    for clip in study.region_clips(region):
        assert len(clip) <= 17 and np.isin(clip, region).any() and len(set(states.level[clip])) == 1


def test_statistics_of_clusters_and_of_none(states, study):
    shares = [study.cluster(k).share for k in range(states.num_codes)]
    assert sum(shares) == pytest.approx(1)
    largest = study.cluster(int(np.argmax(shares)))
    assert largest.actions.sum() == pytest.approx(1) and largest.dwell >= 1
    empty = study.region(np.array([], dtype=int))
    assert empty.count == 0 and np.isnan(empty.value) and study.mean_image(np.array([], int)) is None


def test_labels_are_readable_on_every_color():
    assert readable_ink("#55136B") == "#ffffff" and readable_ink("#EBAC00") == "#000000"


def test_states_of_other_weights_are_refused(agent, states, tmp_path, capsys):
    other = load_agent(RELEASED, device="cpu")
    other.network.policy.bias.data += 1
    with pytest.raises(InterpError, match="other weights"):
        ClusterStudy(other, states).checked()
    path = shutil.copy(states.path, tmp_path / "states.h5")
    again = open_states(other, path, any_settings=True, steps=1, progress=False)
    assert len(again) == 64 and "another fruitbot agent" in capsys.readouterr().err
    assert len(open_states(other, path, any_settings=True)) == 64  # and now they are its own


# -- the widget without a front end -----------------------------------------------------------------------------------


def test_without_a_front_end_there_is_a_picture_and_no_widget_state(run_dir, states, tmp_path):
    import nbclient
    import nbformat

    from interp_lib.cli.lab import write_notebook

    notebook = nbformat.read(write_notebook(run_dir, states.path, tmp_path / "browse.ipynb"), as_version=4)
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (output,) = [o for o in notebook.cells[1].outputs if o.output_type == "execute_result"]
    assert set(output.data) == {"text/plain", "image/png"}
    assert base64.b64decode(output.data["image/png"]).startswith(b"\x89PNG")
    assert "widgets" not in notebook.metadata or not notebook.metadata.widgets
    assert "sppo-fruitbot-s2021" in output.data["text/plain"]
    assert str(tmp_path) not in notebook.cells[1].source  # relative paths: the folder can move


def test_browser_reacts_to_what_the_reader_does(run_dir, states):
    """The same code that Chromium drives below, through the widgets' Python side."""
    from interp_lib.clusters.browser import ClusterBrowser
    from interp_lib.clusters.panels import Panels

    browser = ClusterBrowser(run_dir, states, tsne=states.fdr[states.kept][:, ::-1])
    panels = Panels(browser)
    point = 5
    panels.map.widget.hovering = point
    assert f'data-row="{browser.rows[point]}"' in panels.state.value
    panels.map.widget.hovering = None
    assert f'data-row="{panels.kept_row}"' in panels.state.value
    panels.map.widget.selection = np.array([point], dtype=np.uint32)  # a click
    assert panels.kept_row == browser.rows[point] and browser.rows[point] in panels.episode
    step = len(panels.episode) - 1
    panels.player.slider.value = step
    assert f'data-row="{panels.episode[step]}"' in panels.state.value
    panels.map.widget.selection = np.arange(30, dtype=np.uint32)  # a lasso
    assert "<b>30</b> states" in panels.group.value and panels.group.value.count("<img") == 4
    k = int(states.code[states.kept][0])
    panels.buttons[k].click()
    assert f"<b>{(states.kept & (states.code == k)).sum():,}</b> states" in panels.group.value
    panels.text.value = "Heads for <fruit>."
    panels.save.click()
    assert read_descriptions(run_dir, 8)[k] == "Heads for <fruit>."
    assert "saved" in panels.saved.value and "Heads for &lt;fruit&gt;." in panels.group.value
    unused = [k for k, button in panels.buttons.items() if button.disabled]
    assert unused == [k for k in range(8) if k not in states.code[states.kept]]
    assert "not used" in browser.cluster_html(unused[0]) if unused else True
    write_description(run_dir, k, "", 8)


def test_an_agent_alone_can_be_browsed_but_not_described(agent, states):
    from interp_lib.clusters.browser import ClusterBrowser

    with pytest.raises(InterpError, match="not a run folder"):
        ClusterBrowser(agent, states).describe(0, "text")
    with pytest.raises(InterpError, match="ppo run has no clusters"):
        ClusterBrowser(RELEASED.with_name("ppo-fruitbot-s2021"), states)
    with pytest.raises(ValueError, match="tsne"):
        ClusterBrowser(agent, states, tsne=np.zeros((3, 2)))


# -- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_file(run_dir, states, tmp_path_factory):
    """What `interp browse --export` writes."""
    path = tmp_path_factory.mktemp("page") / "fruitbot.html"
    largest = int(np.bincount(states.code).argmax())
    write_description(run_dir, largest, "Crosses </script> & open ground.", 8)
    assert main(["browse", str(run_dir), "--states", str(states.path), "--export", str(path)]) == 0
    write_description(run_dir, largest, "", 8)
    return path


def test_page_holds_everything_itself(page_file, states, agent):
    from interp_lib.clusters.page import export_explorer

    text = page_file.read_text()
    assert len(text) < 8_000_000
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert len(data["code"]) == states.kept.sum() == len(data["spaces"]["t-SNE"][0])
    assert all(uri.startswith("data:image/webp") for uri in data["sheets"] + data["clipSheets"])
    assert "Crosses </script> & open ground." in [cluster["description"] for cluster in data["clusters"]]
    assert not re.search(r'(src|href)="(?!data:|https://arxiv)', text)
    small = export_explorer(agent, states, page_file.with_name("small.html"), with_tsne=False, max_bytes=900_000)
    assert small.bytes <= 900_000 and 10 < small.states < states.kept.sum()
    with pytest.raises(InterpError, match="too few"):
        export_explorer(agent, states, page_file.with_name("none.html"), with_tsne=False, max_bytes=100_000)


@pytest.fixture(scope="module")
def chromium():
    with running_chromium() as browser:
        yield browser


FRAME = "document.getElementById('frame').toDataURL()"


@needs_chromium
@pytest.mark.browser
def test_page_in_chromium(chromium, page_file):
    problems, requests = [], []
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("request", lambda request: requests.append(request.url) if not request.url.startswith("data:") else None)
    page.goto(page_file.as_uri())
    page.wait_for_function("document.getElementById('frame').dataset.state !== undefined && sheets[0].complete")
    before, first = page.evaluate(FRAME), page.get_attribute("#frame", "data-state")

    box = page.locator("#over").bounding_box()
    x, y = page.evaluate("(() => { const i = code.findIndex((k, i) => i !== kept && k !== code[kept]);"
                         "return [px[i], py[i]]; })()")  # fmt: skip
    page.mouse.move(box["x"] + x, box["y"] + y)
    assert page.get_attribute("#frame", "data-state") != first and page.evaluate(FRAME) != before
    assert page.inner_text("#level") and "probability" in page.inner_text("#action")
    page.mouse.move(box["x"] - 5, box["y"])  # leaving brings back what was kept
    assert page.get_attribute("#frame", "data-state") == first
    page.mouse.click(box["x"] + x, box["y"] + y)
    page.mouse.move(box["x"] - 5, box["y"])
    kept = page.get_attribute("#frame", "data-state")
    assert kept != first

    page.focus("#over")  # by keyboard alone
    moved = set()
    for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
        moved.add(page.get_attribute("#frame", "data-state"))
    assert moved - {kept} and page.inner_text("#spoken").startswith("Cluster")
    cluster = page.evaluate("code[kept]")
    page.keyboard.press(str(cluster))
    assert page.get_attribute(f"#legend [data-cluster='{cluster}']", "aria-pressed") == "true"
    page.keyboard.press("Escape")
    page.get_by_role("button", name="t-SNE").click()
    page.get_by_label("Closer").click()
    assert "open ground" in page.inner_text("#cards")
    clip = "clips[0].canvas.toDataURL()"
    frames = {page.evaluate(clip) for _ in range(4) if page.wait_for_timeout(200) is None}
    assert len(frames) > 1  # the clips play

    assert problems == [] and requests == [page_file.as_uri()]
    page.close()


@needs_chromium
@pytest.mark.browser
def test_page_on_a_phone(chromium, page_file):
    context = chromium.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.wait_for_function("document.getElementById('frame').dataset.state !== undefined")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    first = page.get_attribute("#frame", "data-state")
    page.locator("#over").scroll_into_view_if_needed()
    box = page.locator("#over").bounding_box()
    x, y = page.evaluate("(() => { const i = code.findIndex(k => k !== code[kept]); return [px[i], py[i]]; })()")
    page.touchscreen.tap(box["x"] + x, box["y"] + y)
    assert page.get_attribute("#frame", "data-state") != first
    context.close()


def test_command_explains_itself_and_its_errors(run_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["browse", "--help"])
    assert stop.value.code == 0 and "example:\n  interp browse" in capsys.readouterr().out
    (tmp_path / "states.h5").write_bytes(b"no states")
    for arguments, message in (
        (["nowhere"], "no run folder nowhere"),
        ([str(RELEASED.with_name("ppo-fruitbot-s2021"))], "only SPPO"),
        ([str(run_dir), "--states", "missing.h5"], "missing.h5 does not exist"),
        ([str(run_dir), "--states", "states.h5"], "damaged"),
    ):
        assert main(["browse", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.strip().splitlines()) == 1


# -- JupyterLab -------------------------------------------------------------------------------------------------------


@pytest.fixture
def lab(run_dir, states, tmp_path):
    """`interp browse`, as a reader starts it → address of its JupyterLab."""
    with running_lab(tmp_path, str(run_dir), "--states", str(states.path)) as address:
        yield address


@needs_chromium
@pytest.mark.browser
def test_browser_in_jupyterlab(chromium, lab, run_dir, states):
    page = chromium.new_page(viewport={"width": 1360, "height": 1300})
    open_notebook(page, lab)
    page.wait_for_selector(".interp.state img")
    page.keyboard.press("Control+b")  # the file browser takes the room
    canvas = page.locator(".jp-OutputArea canvas").first
    canvas.scroll_into_view_if_needed()

    def state():
        # Both at one moment: between two questions a point can be left, and its state be gone again.
        return page.locator(".interp.state").evaluate("e => [e.dataset.row, e.querySelector('img').src]")

    # The map is drawn some time after it is there: move over it until a point answers.
    first = shown = state()
    box = canvas.bounding_box()
    spots = [(0.3 + 0.04 * i, 0.25 + 0.05 * j) for j in range(11) for i in range(11)]
    for i, (x, y) in enumerate(spots * 3):
        if i % 20 == 0:
            box = canvas.bounding_box()
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.wait_for_timeout(100)
        shown = state()
        if shown[0] != first[0]:
            break
    assert shown[0] != first[0] and shown[1] != first[1]
    page.wait_for_timeout(300)
    page.mouse.down()
    page.mouse.up()  # a click keeps it
    page.wait_for_timeout(700)
    kept = state()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] - 40)
    page.wait_for_timeout(700)
    assert state() == kept and kept[0] != first[0]

    cluster = int(states.code[int(kept[0])])
    page.locator(".jp-OutputArea").get_by_role("button", name=str(cluster), exact=True).click()
    page.wait_for_selector("text=mean dwell")
    sentence = "Keeps to the left of the wall."
    page.get_by_placeholder("What does the agent do").fill(sentence)
    page.locator(".jp-OutputArea").get_by_role("button", name="Save").click()
    page.wait_for_selector(f"text=saved cluster {cluster}")
    assert read_descriptions(run_dir, 8) == {cluster: sentence}
    page.close()
    write_description(run_dir, cluster, "", 8)
