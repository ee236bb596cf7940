"""The page of prototypes: what it says is what the agent does, and it works in a real Chromium, also a phone's."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from in_chromium import needs_chromium, running_chromium

from interp_lib.agents.protosac import SAC, ProtoSAC
from interp_lib.common.errors import InterpError
from interp_lib.envs.continuous import make_task_vec
from interp_lib.prototypes import PrototypeStudy, episode_frames, states, traces
from interp_lib.prototypes.likeness import summary
from interp_lib.prototypes.page import export_prototype_explorer
from interp_lib.prototypes.traces import even_steps, record_episodes

K, STEPS = 6, 20
STRIDE = 200 // STEPS
SMALL = dict(learning_starts=50, batch_size=32, buffer_size=1000, policy_kwargs={"net_arch": [32, 32]}, seed=0)


@pytest.fixture(scope="module")
def agent():
    """A tiny agent, really trained and projected."""
    return ProtoSAC("MlpPolicy", make_task_vec("pendulum", 1, 0), n_prototypes=K, latent_dim=8, **SMALL).learn(120)


@pytest.fixture(scope="module")
def episodes(agent):
    return record_episodes(agent, "pendulum", 3, seed=5)


@pytest.fixture(scope="module")
def page_file(agent, episodes, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "pendulum.html"
    info = export_prototype_explorer(agent, episodes, path, run="run</script><img src=x>&", most_steps=STEPS)
    assert info.bytes == path.stat().st_size < 1_000_000 and info.states == STEPS
    return path


def data_of(path):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)[1])


def test_the_page_says_what_the_agent_does(page_file, agent, episodes):
    data = data_of(page_file)
    trace = sorted(episodes, key=lambda trace: trace.total)[1]
    steps = even_steps(len(trace), STEPS)
    explanation = agent.explain(trace.observations[steps])
    assert data["episode"]["step"] == steps
    np.testing.assert_allclose(data["episode"]["weights"], explanation.weights, atol=1e-4)
    np.testing.assert_allclose(data["episode"]["actions"], explanation.action, atol=1e-4)
    np.testing.assert_allclose(data["episode"]["soFar"], np.cumsum(trace.rewards)[steps], atol=0.06)
    assert len(data["episode"]["value"]) == len(data["episode"]["caption"]) == STEPS
    assert (data["actionNames"], data["low"], data["high"]) == (["torque"], [-2], [2])
    prototypes = data["prototypes"]
    np.testing.assert_allclose([p["action"] for p in prototypes], agent.prototypes.actions, atol=1e-4)
    leading = np.concatenate([trace.leading for trace in episodes])
    np.testing.assert_allclose([p["led"] for p in prototypes], np.bincount(leading, minlength=K) / 600, atol=1e-4)
    assert f'<span id="likeness">{summary(PrototypeStudy(agent, episodes).likeness)}</span>' in page_file.read_text()
    led = [prototypes[k]["led"] for k in data["order"]]
    assert sorted(data["order"]) == list(range(K)) and led == sorted(led, reverse=True)


def test_the_page_holds_everything_itself_and_escapes(page_file):
    text = page_file.read_text()
    assert "run&lt;/script&gt;&lt;img src=x&gt;&amp;" in text and "<img src=x" not in text
    data = data_of(page_file)
    assert all(uri.startswith("data:image/webp;base64,") for uri in data["frames"] + data["pictures"])
    assert not re.search(r'(src|href)="(?!data:)|https?://|@import|url\(', text)


def test_a_page_that_would_be_too_large_keeps_fewer_steps(agent, episodes, page_file, tmp_path):
    path = tmp_path / "small.html"
    info = export_prototype_explorer(
        agent, episodes, path, most_steps=STEPS, max_bytes=page_file.stat().st_size - 2_000
    )
    assert (
        info.states == -(-STEPS // 2) and data_of(path)["episode"]["step"] == data_of(page_file)["episode"]["step"][::2]
    )
    with pytest.raises(InterpError, match="10,000 bytes are too few for an explorer of this agent"):
        export_prototype_explorer(agent, episodes, path, most_steps=STEPS, max_bytes=10_000)


def test_without_opengl_the_page_shows_states_as_bars(agent, episodes, tmp_path, monkeypatch):
    for module in (episode_frames, states, traces):
        monkeypatch.setattr(module, "rendering_problem", lambda task: "no OpenGL here: install libegl1")
    path = tmp_path / "bars.html"
    export_prototype_explorer(agent, episodes[:1], path, most_steps=3)
    text = path.read_text()
    assert "no OpenGL here: install libegl1" in text and "drawn as bars" in text
    assert data_of(path)["tile"] == [600, 600]


def test_episodes_that_say_nothing_about_the_agent_are_refused(agent, episodes, tmp_path):
    path = tmp_path / "page.html"
    with pytest.raises(InterpError, match="at least one episode"):
        export_prototype_explorer(agent, [], path)
    with pytest.raises(InterpError, match="at least one step"):
        export_prototype_explorer(agent, episodes, path, most_steps=0)
    with pytest.raises(InterpError, match="recorded with other weights"):
        export_prototype_explorer(agent, [replace(episodes[0], weights=episodes[0].weights[:, ::-1])], path)
    with pytest.raises(InterpError, match="no prototypes to explain"):
        export_prototype_explorer(SAC("MlpPolicy", make_task_vec("pendulum", 1, 0), **SMALL), episodes, path)
    assert not path.exists()


@needs_chromium
@pytest.mark.browser
def test_page_in_chromium(page_file):
    problems, requests = [], []
    with running_chromium() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 900}, color_scheme="dark")
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda r: requests.append(r.url) if not r.url.startswith("data:") else None)
        page.goto(page_file.as_uri())
        page.wait_for_function("frames.every(image => image.complete)")

        def shown():
            leaders = page.locator(".leader").evaluate_all(
                "all => all.map(e => [e.dataset.prototype, e.dataset.weight])"
            )
            pixels = page.evaluate("document.getElementById('frame').toDataURL()")
            return int(page.get_attribute("#frame", "data-step")), pixels, leaders, page.inner_text("#actions b")

        first = shown()
        slider = page.locator("#slider")
        box = slider.bounding_box()
        page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2)
        moved = shown()
        assert moved[0] > 100 and all(new != old for new, old in zip(moved[:3], first[:3], strict=True))
        weights = dict(enumerate(data_of(page_file)["episode"]["weights"][moved[0] // STRIDE]))
        assert {int(k): float(w) for k, w in moved[2]} == {int(k): weights[int(k)] for k, _ in moved[2]}

        page.keyboard.press("ArrowRight")
        assert shown()[0] == moved[0] + STRIDE and page.inner_text("#spoken").startswith(f"Step {moved[0] + STRIDE}.")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("ArrowLeft")
        assert shown() == moved
        page.keyboard.press("Space")
        page.wait_for_function(f"Number(document.getElementById('frame').dataset.step) > {moved[0]}")
        page.keyboard.press("Space")
        stopped = shown()
        page.wait_for_timeout(300)
        assert shown() == stopped and page.get_attribute("#play", "aria-label") == "Play"

        strip = "document.getElementById('strip').toDataURL()"
        before = page.evaluate(strip)
        card = page.locator(".card").first  # the one that leads most
        k = card.get_attribute("data-prototype")
        card.click()
        assert card.get_attribute("aria-pressed") == "true" and page.evaluate(strip) != before
        assert page.locator(".leader").first.get_attribute("data-prototype") == k  # a step that it leads
        assert f"P{k} leads" in page.inner_text("#choice")
        page.keyboard.press("Escape")
        assert card.get_attribute("aria-pressed") == "false" and page.evaluate(strip) == before
        assert problems == [] and requests == [page_file.as_uri()]

        context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
        phone = context.new_page()
        phone.goto(page_file.as_uri())
        phone.locator(".card").nth(1).tap()
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390
        assert phone.locator("#frame").bounding_box()["y"] < 844  # what was chosen above is in view
        context.close()
