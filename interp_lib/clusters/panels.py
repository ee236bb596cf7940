"""The controls of :class:`ClusterBrowser` and what they do when they are touched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets
import jscatter
import numpy as np
import pandas as pd

from ..common.errors import InterpError
from ..common.style import cluster_color, readable_ink
from ..common.widgets import STYLE, FramePlayer

if TYPE_CHECKING:
    from .browser import ClusterBrowser

MAP_HEIGHT = 590
PANEL_WIDTH = "290px"
CHOSEN = "var(--jp-ui-font-color1, #1f2328)"  # JupyterLab's text colour


def build(browser: ClusterBrowser) -> ipywidgets.Widget:
    """The whole browser as one widget."""
    return Panels(browser).box


class Panels:
    """Map, state, player, cluster buttons, group and description of one browser.

    The map's indices count points; everything else counts rows of the :class:`StateSet`.
    """

    def __init__(self, browser: ClusterBrowser) -> None:
        self.browser = browser
        self.cluster: int | None = None  # whose description is edited
        self.kept_row = int(browser.rows[0])  # shown while the mouse is nowhere
        self.episode = browser.episode(self.kept_row)
        self._setting = False  # whether a change comes from here, not from the reader
        self._point_of = {int(row): point for point, row in enumerate(browser.rows)}

        self.map = self._make_map()
        self.state = ipywidgets.HTML(layout={"width": PANEL_WIDTH})
        self.player = FramePlayer(self._play)
        self.group = ipywidgets.HTML()
        self.buttons = self._make_buttons()
        self.text = ipywidgets.Text(
            placeholder="What does the agent do in this cluster?", continuous_update=True, layout={"flex": "1 1 300px"}
        )
        self.save = ipywidgets.Button(
            description="Save", icon="check", button_style="primary", layout={"width": "90px"}
        )
        self.saved = ipywidgets.HTML()
        self.editor = ipywidgets.HBox([self.text, self.save, self.saved], layout={"flex_flow": "row wrap"})
        self.save.on_click(self._save)
        self.text.on_msg(self._enter)

        self._show(self.kept_row)
        self._keep(self.kept_row)
        self._choose(None)
        self.box = self._lay_out()

    def _make_map(self) -> Any:
        browser = self.browser
        names = [str(k) for k in range(browser.states.num_codes)]
        colors = [cluster_color(k) for k in range(browser.states.num_codes)]
        self._data = pd.DataFrame(
            {f"{space} {axis}": points[:, i] for space, points in browser.spaces.items() for i, axis in enumerate("12")}
        )
        self._data["cluster"] = pd.Categorical.from_codes(browser.states.code[browser.rows], categories=names)
        scatter = jscatter.Scatter(
            data=self._data, x="FDR 1", y="FDR 2", color_by="cluster",
            color_map=dict(zip(names, colors, strict=True)), height=MAP_HEIGHT, axes_labels=False, legend=False,
            opacity_unselected=0.12, lasso_initiator=False, background_color="white",
        )  # fmt: skip
        scatter.widget.color_selected = colors  # a selected point keeps the colour of its cluster
        # Rings around thousands of selected points would cover their neighbours.
        scatter.widget.regl_scatterplot_options = {"pointOutlineWidth": 1, "pointSizeSelected": 1}
        scatter.widget.toolbar_buttons = ["pan_zoom", "lasso", "divider", "full_screen", "reset"]
        scatter.widget.observe(self._hovered, "hovering")
        scatter.widget.observe(self._selected, "selection")
        return scatter

    def _make_buttons(self) -> dict[int | None, ipywidgets.Button]:
        counts = np.bincount(self.browser.states.code[self.browser.rows], minlength=self.browser.states.num_codes)
        buttons: dict[int | None, ipywidgets.Button] = {
            None: ipywidgets.Button(description="all", layout={"width": "60px"})
        }
        for k, count in enumerate(counts):
            color = cluster_color(k)
            buttons[k] = ipywidgets.Button(
                description=str(k), tooltip=f"cluster {k}" if count else "not used on these levels",
                disabled=not count, layout={"width": "52px"},
                style={"button_color": color, "text_color": readable_ink(color), "font_weight": "bold"},
            )  # fmt: skip
        for chosen, button in buttons.items():
            button.on_click(lambda _, k=chosen: self._choose(k))
        return buttons

    def _lay_out(self) -> ipywidgets.Widget:
        browser = self.browser
        meta = browser.states.meta
        title = ipywidgets.HTML(
            f"{STYLE}<div class=interp><b>{meta['game']}</b> · {meta['run']}, trained {meta['timesteps']:,} steps · "
            f"{len(browser.rows):,} states on unseen levels<br><span class=soft>Hover over a point to see the state; "
            "click to keep it and play its episode. Across: the map's first coordinate, up: its second.</span></div>"
        )
        head = [title]
        if len(browser.spaces) > 1:
            toggle = ipywidgets.ToggleButtons(options=list(browser.spaces), style={"button_width": "70px"})
            toggle.observe(lambda change: self._switch_space(change["new"]), "value")
            head.append(toggle)
        left = ipywidgets.VBox(
            [self.map.widget], layout={"flex": "1 1 380px", "min_width": "300px", "margin": "0 12px 0 0"}
        )
        right = ipywidgets.VBox([self.state, self.player], layout={"width": "310px", "flex": "0 0 310px"})
        wrap = {"flex_flow": "row wrap", "align_items": "flex-start", "width": "100%"}
        return ipywidgets.VBox(
            [
                ipywidgets.HBox(head, layout={**wrap, "justify_content": "space-between", "align_items": "center"}),
                ipywidgets.HBox([left, right], layout=wrap),
                ipywidgets.HBox([ipywidgets.Label("cluster"), *self.buttons.values()], layout=wrap),
                self.group,
                self.editor,
            ],
            layout={"width": "100%"},
        )

    # -- what the reader does ---------------------------------------------------------------------------------------

    def _hovered(self, change: dict) -> None:
        point = change["new"]
        if not self._setting:
            self._show(self.kept_row if point is None else int(self.browser.rows[point]))

    def _selected(self, change: dict) -> None:
        if self._setting:
            return
        points = np.asarray(change["new"] if change["new"] is not None else [], dtype=np.int64)
        if len(points) == 1:
            self._keep(int(self.browser.rows[points[0]]))
            self._show(self.kept_row)
        elif len(points):
            self._set_cluster(None)
            self.group.value = self.browser.region_html(self.browser.rows[points])
        else:
            self._set_cluster(None)
            self.group.value = self.browser.all_html()

    def _choose(self, k: int | None) -> None:
        """A cluster's button, or `all`."""
        self._set_cluster(k)
        self.group.value = self.browser.all_html() if k is None else self.browser.cluster_html(k)
        code = self.browser.states.code[self.browser.rows]
        points: Sequence[int] | np.ndarray = [] if k is None else np.flatnonzero(code == k)
        self._quietly(lambda: self.map.selection(points))

    def _set_cluster(self, k: int | None) -> None:
        self.cluster = k
        for name, button in self.buttons.items():
            button.layout.border = f"3px solid {CHOSEN if name == k else 'transparent'}"
        self.editor.layout.display = "none" if k is None else "flex"
        self.saved.value = ""
        if k is not None:
            self.text.value = self.browser.descriptions.get(k, "")
            if self.browser.run_dir is None:
                self.text.disabled = self.save.disabled = True
                self.saved.value = "<span class=interp>open the browser with a run folder to save descriptions</span>"

    def _play(self, step: int) -> None:
        """A step of the kept episode: show it, and where it lies on the map."""
        row = int(self.episode[min(step, len(self.episode) - 1)])
        self.kept_row = row
        self._show(row)
        if (point := self._point_of.get(row)) is not None:
            self._quietly(lambda: setattr(self.map.widget, "hovering", point))

    def _enter(self, _: Any, content: dict, buffers: Any) -> None:
        if content.get("event") == "submit":
            self._save()

    def _save(self, _: Any = None) -> None:
        k = self.cluster
        if k is None:
            return
        try:
            path = self.browser.describe(k, self.text.value)
        except InterpError as error:
            self.saved.value = f"<span class=interp style='color:#b3261e'>{error}</span>"
            return
        self.group.value = self.browser.cluster_html(k)
        self.saved.value = f"<span class=interp>✓ saved cluster {k} to {path.parent.name}/{path.name}</span>"

    # -- what is shown ----------------------------------------------------------------------------------------------

    def _show(self, row: int) -> None:
        self.state.value = self.browser.state_html(row)

    def _keep(self, row: int) -> None:
        self.kept_row, self.episode = row, self.browser.episode(row)
        self.player.show_episode(len(self.episode), int(np.flatnonzero(self.episode == row)[0]))

    def _switch_space(self, space: str) -> None:
        self.map.xy(x=f"{space} 1", y=f"{space} 2", animate=True)

    def _quietly(self, change: Any) -> None:
        self._setting = True
        try:
            change()
        finally:
            self._setting = False
