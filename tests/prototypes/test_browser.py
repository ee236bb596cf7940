"""Browsing prototypes: frames of any step, what is said about a decision, and the widget in a real JupyterLab."""

import base64

import numpy as np
import pytest
from conftest import ROOT
from in_chromium import needs_chromium, open_notebook, running_chromium, running_lab

from interp_lib.cli import main
from interp_lib.common.errors import InterpError
from interp_lib.envs.pictures import rendering_problem, rendering_task
from interp_lib.prototypes import PrototypeStudy, episode_frames
from interp_lib.prototypes.episode_frames import EpisodeFrames
from interp_lib.prototypes.likeness import summary
from interp_lib.prototypes.traces import EpisodeTrace, with_frames
from interp_lib.runs.folder import load_agent

RELEASED = ROOT / "checkpoints" / "protosac-pendulum-s100"


@pytest.fixture(scope="module")
def study():
    return PrototypeStudy.record(load_agent(RELEASED, device="cpu"), "pendulum", 2, seed=3)


@pytest.fixture(scope="module")
def browser(study):
    from interp_lib.prototypes.browser import PrototypeBrowser

    return PrototypeBrowser(study)


@pytest.fixture
def panels(browser):
    from interp_lib.prototypes.panels import Panels

    return Panels(browser)


def random_trace(task, seed, most=60):
    """An episode of random actions; no agent was asked, so its weights say nothing."""
    from interp_lib.envs.continuous import make_task

    env = make_task(task)
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    observations, actions, ended = [], [], False
    while not ended and len(actions) < most:
        observations.append(observation)
        actions.append(env.action_space.sample())
        observation, _, terminated, truncated, _ = env.step(actions[-1])
        ended = terminated or truncated
    env.close()
    ones = np.ones((len(actions), 1), dtype=np.float32)
    return EpisodeTrace(task, seed, np.stack(observations), np.stack(actions), np.zeros(len(actions)), ones, ones)


# -- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["pendulum", "lunarlander"])
def test_frames_in_any_order_are_those_of_the_episode(task):
    traces = [random_trace(task, seed) for seed in (0, 1)]
    frames = EpisodeFrames(traces)
    for episode, step in ((0, 30), (0, 31), (0, 4), (1, 50), (0, 31), (0, 40), (1, 0)):
        wanted = with_frames(traces[episode], [step]).frame(step)
        # LunarLander's exhaust fades with every rendering, so a few of its sparks differ.
        differs = (frames.frame(episode, step) != wanted).any(-1).mean()
        assert differs <= (0.01 if task == "lunarlander" else 0)
    assert frames.note == ""
    with pytest.raises(InterpError, match="has 60 steps"):
        frames.frame(0, 60)
    frames.close()


@pytest.mark.skipif(bool(rendering_problem("hopper")), reason="no OpenGL for MuJoCo here")
def test_frames_survive_that_another_renderer_was_closed():
    trace = random_trace("hopper", 0, most=6)
    frames = EpisodeFrames([trace])
    first = frames.frame(0, 0)
    wanted = with_frames(trace, [4]).frame(4)  # makes a renderer of its own and closes it
    np.testing.assert_array_equal(frames.frame(0, 4), wanted)
    assert first.std() > 10 and frames.frame(0, 5).std() > 10  # not black
    frames.close()


@pytest.mark.skipif(bool(rendering_problem("hopper")), reason="no OpenGL for MuJoCo here")
@pytest.mark.parametrize("distance", [12.0, 200.0])  # metres; Gymnasium's floor ends at 40
def test_a_runner_stays_in_the_picture_and_on_the_floor(distance):
    env = rendering_task("halfcheetah")
    env.reset(seed=0)
    first = env.render().astype(int)
    simulator = env.unwrapped
    moved = simulator.data.qpos.copy()
    moved[0] += distance
    simulator.set_state(moved, simulator.data.qvel.copy())
    second = env.render().astype(int)
    env.close()
    # The floor repeats every 2 m: seen by a camera that follows, almost nothing changed.
    assert (abs(first - second).max(-1) > 60).mean() < 0.05


def test_frames_are_cached_up_to_a_limit(monkeypatch):
    trace = random_trace("pendulum", 0)
    frames = EpisodeFrames([trace])
    first = frames.frame(0, 5)
    assert frames.frame(0, 5) is first
    monkeypatch.setattr(episode_frames, "_MOST_BYTES", 3 * first.nbytes)
    for step in (6, 7, 5, 8):  # 5 was used after 6
        frames.frame(0, step)
    assert frames.frame(0, 5) is first and len(frames._cache) == 3
    frames.close()


def test_an_episode_that_comes_out_differently_is_no_explanation():
    trace = random_trace("pendulum", 0)
    trace.observations[20] += 0.5
    frames = EpisodeFrames([trace])
    frames.frame(0, 19)
    with pytest.raises(InterpError, match="came out differently"):
        frames.frame(0, 20)


def test_images_are_shown_as_the_agent_sees_them():
    seen = np.random.default_rng(0).integers(0, 256, (3, 4, 64, 64), dtype=np.uint8)
    ones = np.ones((3, 1), dtype=np.float32)
    trace = EpisodeTrace("carracing", 0, seen, np.zeros((3, 3), np.float32), np.zeros(3), ones, ones)
    frames = EpisodeFrames([trace])
    frame = frames.frame(0, 1)
    assert "grey images" in frames.note and set(np.unique(seen[1, -1])) <= set(np.unique(frame))


def test_without_opengl_states_are_drawn_and_the_note_says_why(browser, monkeypatch):
    from interp_lib.prototypes import states, traces
    from interp_lib.prototypes.browser import PrototypeBrowser

    for module in (episode_frames, states, traces):
        monkeypatch.setattr(module, "rendering_problem", lambda task: "no OpenGL here: install libegl1")
    other = PrototypeBrowser(PrototypeStudy(browser.study.agent, browser.study.traces))
    trace = other.study.traces[1]
    np.testing.assert_array_equal(other.frames.frame(1, 9), with_frames(trace, [9]).frames[0])
    assert "no OpenGL here: install libegl1" in other.state_html(1, 9)
    assert "no OpenGL" not in browser.state_html(1, 9) and "bars" in other.prototype_html(0)


# -- what is said -----------------------------------------------------------------------------------------------------


def test_what_is_said_about_a_decision_is_true(browser):
    trace, step = browser.study.traces[0], 12
    leaders = browser.leaders(0, step)
    assert leaders[0] == trace.leading[step] and len(leaders) == 4
    weights = trace.weights[step, leaders]
    assert (np.diff(weights) <= 0).all() and weights[-1] >= np.delete(trace.weights[step], leaders).max()
    assert f'data-weight="{weights[0]:.4f}"' in browser.weight_html(0, step, leaders[0])
    assert f"{trace.actions[step, 0]:+.2f}" in browser.action_html(0, step) and "torque" in browser.action_html(0, step)
    assert f"<b>{trace.rewards[: step + 1].sum():.1f}</b> of {trace.total:.1f}" in browser.state_html(0, step)
    assert browser.study.values[0][step] < 0  # Pendulum's rewards are costs


def test_panels_react_to_what_the_reader_does(panels, browser):
    assert summary(browser.study.likeness) in panels.box.children[0].value
    panels.go_to(0, 0)
    before = panels.state.value
    panels.player.slider.value = 57
    assert 'data-step="57"' in panels.state.value and panels.state.value != before
    for k, weight in zip(browser.leaders(0, 57), panels.weights, strict=True):
        assert f'data-prototype="{k}"' in weight.value
    assert panels.leaders[0].description == f"P{browser.leaders(0, 57)[0]}"
    panels.episode.value = 1
    assert 'data-episode="1" data-step="0"' in panels.state.value and panels.player.slider.value == 0
    for k, button in panels.thumbnails.items():
        button.click()
        assert f'data-prototype="{k}"' in panels.gallery.value
    panels.player.slider.value = 100
    panels.leaders[1].click()
    assert panels.prototype == browser.leaders(1, 100)[1]
    panels.nearest[0].children[0].click()
    state = browser.study.nearest[panels.prototype][0]
    assert (panels.episode_index, panels.step, panels.player.slider.value) == (state.episode, state.step, state.step)
    assert panels.episode.value == state.episode


def test_two_browsers_do_not_mix_their_pictures(browser):
    from interp_lib.prototypes.panels import Panels

    first, second = Panels(browser), Panels(browser)
    names = [set(p.thumbnails[0]._dom_classes) - {"interp-picture"} for p in (first, second)]
    assert len(names[0]) == len(names[1]) == 1 and not names[0] & names[1]


def test_without_a_front_end_there_is_a_picture_and_no_widget_state(tmp_path):
    import nbclient
    import nbformat

    from interp_lib.cli.lab import write_prototype_notebook

    path = write_prototype_notebook(RELEASED, "pendulum", tmp_path / "browse.ipynb", episodes=1)
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (output,) = [o for o in notebook.cells[1].outputs if o.output_type == "execute_result"]
    assert set(output.data) == {"text/plain", "image/png"}
    assert base64.b64decode(output.data["image/png"]).startswith(b"\x89PNG")
    assert "widgets" not in notebook.metadata or not notebook.metadata.widgets
    assert "PrototypeBrowser of Pendulum-v1, 1 episodes" in output.data["text/plain"]


def test_states_of_clusters_are_refused_for_prototypes(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["browse", str(RELEASED), "--states", "file"]) == 2
    error = capsys.readouterr().err
    assert "--states is for the clusters of SPPO runs" in error and len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


# -- JupyterLab -------------------------------------------------------------------------------------------------------


@needs_chromium
@pytest.mark.browser
def test_browser_in_jupyterlab(tmp_path):
    problems = []
    with running_chromium() as chromium, running_lab(tmp_path, str(RELEASED)) as lab:
        page = chromium.new_page(viewport={"width": 1360, "height": 1500})
        page.on("pageerror", lambda error: problems.append(str(error)))
        open_notebook(page, lab)
        page.wait_for_selector(".interp.now img")

        def shown():
            state = page.locator(".interp.now")
            weights = page.locator(".interp.weight").evaluate_all(
                "rows => rows.map(row => [row.dataset.prototype, row.dataset.weight])"
            )
            return (
                int(state.get_attribute("data-step")), state.locator("img").first.get_attribute("src"), weights,
                page.inner_text(".interp .actions"),
            )  # fmt: skip

        first = shown()
        assert len(first[2]) == 4 and "torque" in first[3]
        handle = page.locator(".jp-OutputArea .noUi-handle").first
        handle.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function(f"document.querySelector('.interp.now').dataset.step == {first[0] + 1}")
        moved = shown()
        assert moved[1] != first[1] and moved[2] != first[2]

        track = page.locator(".jp-OutputArea .noUi-base").first.bounding_box()
        box = handle.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(track["x"] + 0.75 * track["width"], track["y"] + track["height"] / 2, steps=6)
        page.mouse.up()
        page.wait_for_function("Number(document.querySelector('.interp.now').dataset.step) > 120")
        page.wait_for_timeout(500)
        dragged = shown()
        assert dragged[1] != moved[1] and dragged[2] != moved[2] and dragged[3] != moved[3]

        second = dragged[2][1][0]  # the prototype with the second largest weight: its picture is a button
        page.locator(".jp-OutputArea .interp-picture", has_text=f"P{second}").first.click()
        page.wait_for_selector(f".interp.prototype[data-prototype='{second}']")
        page.wait_for_selector(f"text=nearest to P{second}")
        assert "decisions" in page.inner_text(".interp.prototype") and "mean weight" in page.inner_text(
            ".interp.prototype"
        )
        background = "button => getComputedStyle(button).backgroundImage"
        near = page.locator(".jp-OutputArea .interp-picture[title='go to this moment']")
        assert near.count() == 6 and "data:image/webp" in near.first.evaluate(background)
        seed_and_step = page.get_by_text("seed", exact=False).filter(has_text=", step").last.inner_text()
        near.last.click()
        step = int(seed_and_step.split("step ")[1].split()[0])
        page.wait_for_function(f"document.querySelector('.interp.now').dataset.step == {step}")

        page.locator(".jp-OutputArea .jupyter-widgets.widget-play button").first.click()
        page.wait_for_function(f"Number(document.querySelector('.interp.now').dataset.step) > {step % 199}")
        assert problems == []
        page.close()
