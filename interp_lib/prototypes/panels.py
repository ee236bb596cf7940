"""The controls of :class:`PrototypeBrowser` and what they do when they are touched."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np
from PIL import Image

from ..common.pictures import data_uri, encoded
from ..common.widgets import STYLE, FramePlayer
from .likeness import summary

if TYPE_CHECKING:
    from .browser import PrototypeBrowser

_BROWSERS = itertools.count()  # class names of two browsers in one notebook must differ
_PROTOTYPE_STYLE = """<style>
.interp.now img, .interp.prototype img { image-rendering: auto; background: none; }
.interp.now > img, .interp.prototype figure:first-child img { border: 2px solid #8c939b; box-sizing: border-box; }
.interp .strip { position: relative; margin-top: 4px; }
.interp .strip img { width: 100%; height: 14px; image-rendering: pixelated; border-radius: 2px; }
.interp .strip i { position: absolute; top: -4px; height: 22px; width: 3px; margin-left: -2px;
  background: var(--jp-ui-font-color1, #1f2328); border: 1px solid var(--jp-layout-color0, #fff); }
.interp.weight { padding: 4px 0 0 8px; }
.interp .track, .interp .range { background: rgba(128, 128, 128, .22); border-radius: 2px; }
.interp .track { height: 12px; margin: 3px 0; } .interp .track i { display: block; height: 100%; border-radius: 2px; }
.interp .actions { display: grid; grid-template-columns: max-content max-content 1fr max-content 3.4em; gap: 8px 8px;
  align-items: center; font-variant-numeric: tabular-nums; }
.interp .range { position: relative; height: 12px; }
.interp .range i { position: absolute; bottom: 0; width: 5px; margin-left: -2px; }
.interp .range b { position: absolute; bottom: -7px; margin-left: -5px; border: 5px solid transparent;
  border-top-width: 0; border-bottom: 7px solid var(--jp-ui-font-color1, #1f2328); }
.interp-picture.jupyter-button { background-size: 28px 15px, cover; background-position: left bottom, center;
  background-repeat: no-repeat; padding: 0 0 0 2px; display: flex; align-items: flex-end; justify-content: flex-start;
  font-weight: 700; font-size: 12px; color: #1f2328; border-radius: 4px; line-height: 15px; }
.interp-picture.jupyter-button:focus-visible { outline: 3px solid #1f6feb; outline-offset: 1px; }
.interp h4 { font-size: 14px; margin: 2px 0 6px; }
</style>"""


class Panels:
    """Episode, state, player, the prototypes that decide, the action, and the gallery of one prototype.

    Pictures of prototypes are CSS backgrounds of buttons: they are sent once, and a step sends only their names.
    """

    def __init__(self, browser: PrototypeBrowser) -> None:
        self.browser, study = browser, browser.study
        self._name = f"interp-b{next(_BROWSERS)}"
        # Both take a while, and readers come back.
        self._gallery, self._near = cache(browser.prototype_html), cache(browser.nearest_pictures)
        self.episode_index, self.step, self.prototype = browser.start_episode, browser.start_step, -1
        height, width = _fit(study.pictures.frames.shape[1:3], 92)

        titles = [f"seed {trace.seed}, return {trace.total:.1f}, {len(trace)} steps" for trace in study.traces]
        self.episode = ipywidgets.Dropdown(
            options=list(zip(titles, range(len(titles)), strict=True)), value=self.episode_index,
            description="episode", layout={"width": "310px"}, style={"description_width": "52px"},
        )  # fmt: skip
        self.episode.observe(lambda change: self.go_to(change["new"], 0), "value")
        self.player = FramePlayer(self._show)
        self.player.layout.width, self.player.layout.flex = "auto", "1 1 340px"  # a long slider: a thousand steps
        self.state, self.rest, self.action, self.gallery, self.nearest_style = (ipywidgets.HTML() for _ in range(5))
        self.leaders = [
            _picture_button(width, height, partial(self._choose_leader, i))
            for i, _ in enumerate(browser.leaders(self.episode_index, 0))
        ]
        self.weights = [ipywidgets.HTML(layout={"flex": "1 1 120px"}) for _ in self.leaders]
        small = _fit(study.pictures.frames.shape[1:3], 56)[::-1]
        self.thumbnails = {k: _picture_button(*small, partial(self.choose, k)) for k in study.usage.order.tolist()}
        for k, button in self.thumbnails.items():
            self._set_picture(button, k)
        most, large = max(map(len, study.nearest)), (round(1.15 * width), round(1.15 * height))
        self.nearest = [self._nearest_column(i, *large) for i in range(most)]

        self._show(self.step)
        self._offer_episode()
        self.choose(self._leading[0])
        self.box = self._lay_out()

    def _nearest_column(self, i: int, width: int, height: int) -> ipywidgets.VBox:
        button = _picture_button(width, height, partial(self._go_to_nearest, i))
        button.add_class(f"{self._name}-n{i}")
        button.layout.border, button.tooltip = "2px solid #8c939b", "go to this moment"
        return ipywidgets.VBox([button, ipywidgets.HTML()], layout={"margin": "0 8px 0 0"})

    def _lay_out(self) -> ipywidgets.Widget:
        study, H, V = self.browser.study, ipywidgets.HBox, ipywidgets.VBox
        pictures = {f"p{k}": frame for k, frame in enumerate(study.pictures.frames)}
        alike = f"<br>In observations (95% intervals), {text}" if (text := summary(study.likeness)) else ""
        title = ipywidgets.HTML(
            f"{STYLE}{_PROTOTYPE_STYLE}{_backgrounds(self._name, pictures)}"
            f"<div class=interp><b>{study.info.gym_id}</b> · {study.agent.n_prototypes} prototypes · "
            f"{len(study.traces)} episodes<br><span class=soft>Move the slider or press play; click a prototype to see "
            f"what it stands for.{alike}</span></div>"
        )
        wrap = {"flex_flow": "row wrap", "align_items": "flex-start", "width": "100%"}
        left = V(
            [_heading("This state …"), self.state],
            layout={"width": "320px", "flex": "0 0 320px", "margin": "0 18px 0 0"},
        )
        line = {"width": "100%", "margin": "0 0 4px 0"}
        rows = [H(pair, layout=line) for pair in zip(self.leaders, self.weights, strict=True)]
        right = V(
            [_heading("… looks like these …"), *rows, self.rest, _heading("… so it does this"), self.action],
            layout={"flex": "1 1 300px", "min_width": "290px", "max_width": "520px"},
        )
        parts = [
            title,
            H([self.episode, self.player], layout={**wrap, "align_items": "center"}),
            H([left, right], layout=wrap),
            _heading("All prototypes, largest mean weight first"),
            H(list(self.thumbnails.values()), layout=wrap),
            self.gallery,
            self.nearest_style,
            H(self.nearest, layout=wrap),
        ]
        return V(parts, layout={"width": "100%"})

    # -- what the reader does ---------------------------------------------------------------------------------------

    def go_to(self, episode: int, step: int) -> None:
        """Show a step of an episode and let the player stand there."""
        self.episode_index = episode
        self.episode.value = episode  # comes back here with step 0 when it is another one: the step is set after it
        self._show(step)
        self._offer_episode()

    def choose(self, k: int) -> None:
        """Open the gallery of prototype ``k``."""
        self.prototype = k
        for other, button in self.thumbnails.items():
            button.layout.border = f"{5 if other == k else 3}px solid {self.browser.study.colors[other]}"
            button.layout.margin = "0 2px 4px" if other == k else "2px 4px 6px"
        self.gallery.value = self._gallery(k)
        for column in self.nearest:  # finding and replaying states can take seconds: show no other prototype's
            column.layout.display = "none"
        self.nearest_style.value = "<div class=interp><p class=soft>Looking for the nearest states …</p></div>"
        pictures = {f"n{i}": frame for i, frame in enumerate(self._near(k))}
        self.nearest_style.value = (
            f"{_backgrounds(self._name, pictures)}<div class=interp><p><b>The evaluation states nearest to P{k}</b> "
            "<span class=soft>in the agent's space, at least 10 steps apart; D is the squared distance. Click one to "
            "go to that moment.</span></p></div>"
        )
        for column, state in zip(self.nearest, self.browser.study.nearest[k], strict=False):
            column.layout.display = "flex"
            column.children[1].value = (
                f'<div class=interp style="font-size:11.5px">D {state.distance:.2g}, weight {state.weight:.0%}<br>'
                f"<span class=soft>seed {self.browser.study.traces[state.episode].seed}, step {state.step}<br>"
                f"{state.caption}</span></div>"
            )

    def _choose_leader(self, i: int) -> None:
        self.choose(self._leading[i])

    def _go_to_nearest(self, i: int) -> None:
        state = self.browser.study.nearest[self.prototype][i]
        self.go_to(state.episode, state.step)

    # -- what is shown ----------------------------------------------------------------------------------------------

    def _offer_episode(self) -> None:
        self.player.show_episode(len(self.browser.study.traces[self.episode_index]), self.step)

    def _show(self, step: int) -> None:
        browser, episode = self.browser, self.episode_index
        self.step = min(step, len(browser.study.traces[episode]) - 1)
        self._leading = browser.leaders(episode, self.step)
        self.state.value = browser.state_html(episode, self.step)
        for k, button, weight in zip(self._leading, self.leaders, self.weights, strict=True):
            self._set_picture(button, k)
            weight.value = browser.weight_html(episode, self.step, k)
        self.rest.value = browser.rest_html(episode, self.step)
        self.action.value = browser.action_html(episode, self.step)

    def _set_picture(self, button: ipywidgets.Button, k: int) -> None:
        classes = ("interp-picture", f"{self._name}-p{k}")
        if button._dom_classes != classes:
            button._dom_classes = classes
            button.description, button.tooltip = f"P{k}", f"P{k}: what it stands for"
            button.layout.border = f"3px solid {self.browser.study.colors[k]}"


def _picture_button(width: int, height: int, clicked: Callable[[], None]) -> ipywidgets.Button:
    button = ipywidgets.Button(layout={"width": f"{width}px", "height": f"{height}px", "flex": "0 0 auto"})
    button.add_class("interp-picture")
    button.on_click(lambda _: clicked())
    return button


def _heading(text: str) -> ipywidgets.HTML:
    return ipywidgets.HTML(f"<div class=interp><h4>{text}</h4></div>")


def _fit(size: Iterable[int], longest: int) -> tuple[int, int]:
    """(height, width) of a picture of ``size`` whose longer side is ``longest``."""
    height, width = size
    scale = longest / max(height, width)
    return round(scale * height), round(scale * width)


def _backgrounds(name: str, pictures: Mapping[str, np.ndarray], longest: int = 220) -> str:
    """A style sheet that gives each class ``<name>-<key>`` its picture, uint8 (H, W, 3), as background.

    Prototypes' pictures (keys p…) have a white corner for their name, which must be read on light and dark ones.
    """
    rules = []
    for key, frame in pictures.items():
        image = Image.fromarray(frame)
        image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        source = data_uri(encoded(image, "webp", quality=85), "webp")
        corner = "white" if key.startswith("p") else "transparent"
        rules.append(
            f".{name}-{key}.jupyter-button {{ background-image: linear-gradient({corner}, {corner}), url({source}); }}"
        )
    return f"<style>{' '.join(rules)}</style>"
