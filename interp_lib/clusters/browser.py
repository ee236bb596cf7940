"""``ClusterBrowser``: move over the space an SPPO agent learned and see what it saw there."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from ..agents.sppo.agents import PPO
from ..common.errors import InterpError
from ..common.style import cluster_color, use_style
from ..common.widgets import bars, chip, display_bundle, facts, moving_picture, picture
from ..envs.actions import ACTION_EFFECTS, effect_of
from ..runs.folder import Run, load_agent, read_run
from .descriptions import DESCRIPTIONS, read_descriptions, write_description
from .figures import draw_space
from .states import StateSet, episode_rows, episode_steps
from .study import ClusterStudy, Group


class ClusterBrowser:
    """Browse the states of an SPPO agent: a notebook shows it as a widget, everything else as a picture.

    Hover over a point to see the state, click to keep it and play its episode, lasso a region or choose a cluster to
    see what its states share, and write down what it is: the sentence goes to ``descriptions.yml`` in the run folder.

    Args:
        agent_or_run: a run folder, a :class:`Run`, or an agent (whose descriptions then have no place to be kept).
        states: collected with this agent.
        rows: which states are points of the map, int (m,); default: all that were kept.
        tsne: t-SNE coordinates of ``rows``, float (m, 2), to switch to.

    Raises:
        InterpError: states of another run, an agent without clusters, damaged descriptions.
        ValueError: coordinates that don't fit the rows.

    >>> ClusterBrowser("checkpoints/sppo-fruitbot-s2021", load_states("states.h5"))
    """

    def __init__(
        self,
        agent_or_run: PPO | Run | Path | str,
        states: StateSet,
        *,
        rows: np.ndarray | None = None,
        tsne: np.ndarray | None = None,
    ) -> None:
        self.run_dir: Path | None = None
        if isinstance(agent_or_run, PPO):
            self.agent = agent_or_run
        else:
            run = agent_or_run if isinstance(agent_or_run, Run) else read_run(agent_or_run)
            self.run_dir, self.agent = run.path, load_agent(run.path)
        self.states, self.study = states, ClusterStudy(self.agent, states).checked()
        self.rows = np.flatnonzero(states.kept) if rows is None else np.asarray(rows, dtype=np.int64)
        if not len(self.rows):
            raise InterpError(f"{states.path} has no kept states to show. Collect more: interp embed RUN")
        if tsne is not None and np.shape(tsne) != (len(self.rows), 2):
            raise ValueError(f"tsne is (m, 2) with m = {len(self.rows)} rows, not {np.shape(tsne)}")
        self.spaces = {"FDR": states.fdr[self.rows]}
        if tsne is not None:
            self.spaces["t-SNE"] = np.asarray(tsne)
        self.descriptions = self._read_descriptions()
        self._effects = list(ACTION_EFFECTS[states.meta["game"]])
        self._steps = episode_steps(states)
        self._cluster_pictures: dict[int, str] = {}
        self._widget: Any = None

    @property
    def widget(self) -> Any:
        """The browser as an ipywidget, built when it is first asked for."""
        if self._widget is None:
            from .panels import build

            self._widget = build(self)
        return self._widget

    # -- what is said about states ----------------------------------------------------------------------------------

    def state_html(self, row: int, *, width: int = 256) -> str:
        """Frame, level, step, cluster, action, value and action probabilities of one state."""
        states, k = self.states, int(self.states.code[row])
        probabilities = self.study.effects[row]
        action = self._effects.index(effect_of(states.meta["game"], int(states.action[row])))
        said = {
            "cluster": chip(k, cluster_color(k)) + self._sentence(k),
            "level": f"{states.level[row]}, step {self._steps[row]}",
            "value": f"{self.study.values[row]:.2f} <span class=soft>(in {self.study.unit})</span>",
            "action taken": f"<b>{self._effects[action]}</b>, probability {probabilities[action]:.0%}",
        }
        return (
            f'<div class="interp state" data-row="{row}">'
            + picture(states.frames([row])[0], width, f"level {states.level[row]}, step {self._steps[row]}")
            + facts(said)
            + f"<p class=soft>What the policy would do (◂ taken; {states.meta['random_action']:.0%} of actions are "
            "random)</p>" + bars(self._effects, probabilities, mark=action) + "</div>"
        )

    def cluster_html(self, k: int) -> str:
        """What is common to a cluster's states, statistics and clips."""
        if k not in self._cluster_pictures:  # they take most of a second
            self._cluster_pictures[k] = self._group_pictures(self.study.rows(k), self.study.cluster_clips(k))
        said = self.study.sentences.get(k)
        by = f"<br><span class=soft>By the game's concepts: {html.escape(str(said))}</span>" if said else ""
        title = f"Cluster {_chip(k)}{self._sentence(k)}{by}"
        return self._group_html(title, self.study.cluster(k), self._cluster_pictures[k])

    def region_html(self, rows: np.ndarray) -> str:
        """The same for any set of states, with the clusters it is made of."""
        codes, counts = np.unique(self.states.code[rows], return_counts=True)
        parts = [f"{_chip(codes[i])} {counts[i] / len(rows):.0%}" for i in np.argsort(-counts)]
        title = "Selected region: " + " ".join(parts)
        pictures = self._group_pictures(rows, self.study.region_clips(rows))
        return self._group_html(title, self.study.region(rows), pictures)

    def all_html(self) -> str:
        """What can be chosen, before anything is."""
        count = len(self.rows)
        return (
            f"<div class=interp><p><b>All {count:,} states.</b> Choose a cluster, or draw around a region with the "
            "lasso (its button is beside the map) to see what those states share.</p></div>"
        )

    def _group_pictures(self, rows: np.ndarray, clips: list[np.ndarray]) -> str:
        mean = self.study.mean_image(rows)
        if mean is None:
            return ""
        pictures = [_figure(picture(mean, 128, "mean image minus that of all states"), "mean, minus that of all")]
        for clip in clips:
            level, step = self.states.level[clip[0]], self._steps[clip[0]]
            text = f"level {level}, steps {step}–{step + len(clip) - 1}"
            pictures.append(_figure(moving_picture(self.states.frames(clip), 128, text), text))
        return "".join(pictures)

    def _group_html(self, title: str, group: Group, pictures: str) -> str:
        if not group.count:
            return f"<div class=interp><p>{title}</p><p>No states: this code was not used on these levels.</p></div>"
        dwell = "" if group.dwell is None else f"mean dwell <b>{group.dwell:.1f}</b> steps · "
        whole = (
            f" · in the {group.whole:,} states whose episode ended in the recording, mean value "
            f"<b>{group.whole_value:.2f}</b> and return to go <b>{group.return_to_go:.2f}</b>"
            if group.whole
            else ""
        )
        common = np.argsort(-group.actions, kind="stable")[:4]
        return (
            f"<div class=interp><p>{title}</p><p><b>{group.count:,}</b> states (<b>{group.share:.1%}</b>) on "
            f"<b>{group.levels}</b> levels · {dwell}mean value <b>{group.value:.2f}</b>{whole} "
            f"<span class=soft>(in {self.study.unit})</span></p>"
            f'<div class=row>{pictures}<div style="min-width:200px"><p class=soft>What the policy would do</p>'
            + bars([self._effects[a] for a in common], group.actions[common])
            + "</div></div></div>"
        )

    def _sentence(self, k: int) -> str:
        text = self.descriptions.get(k)
        return f" {html.escape(text)}" if text else ""

    # -- descriptions -----------------------------------------------------------------------------------------------

    def describe(self, k: int, text: str) -> Path:
        """Write the description of cluster ``k`` to the run folder and return the file.

        Raises:
            InterpError: there is no run folder, no such cluster, or the file can't be written.
        """
        if self.run_dir is None:
            raise InterpError("this browser was given an agent, not a run folder: open it with the run to save.")
        write_description(self.run_dir, k, text, self.states.num_codes)
        self.descriptions = self._read_descriptions()
        return self.run_dir / DESCRIPTIONS

    def _read_descriptions(self) -> dict[int, str]:
        return {} if self.run_dir is None else read_descriptions(self.run_dir, self.states.num_codes)

    def episode(self, row: int) -> np.ndarray:
        """Rows of the episode around ``row``."""
        return episode_rows(self.states, row)

    # -- display ----------------------------------------------------------------------------------------------------

    def figure(self) -> Any:
        """The map as a matplotlib figure: what is shown where no widget can be."""
        axes_names = {"FDR": "z", "t-SNE": "t-SNE"}
        with matplotlib.rc_context():  # the reader's own figures keep their style
            use_style()
            figure, axes = plt.subplots(1, len(self.spaces), figsize=(5.2 * len(self.spaces), 4.6), squeeze=False)
            for ax, (name, points) in zip(axes[0], self.spaces.items(), strict=True):
                title = f"{name} space of {self.states.meta['game']} (n = {len(self.rows):,} states)"
                draw_space(ax, points, self.states.code[self.rows], title, axis=axes_names[name])
        plt.close(figure)  # or the inline backend would show it a second time
        return figure

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.figure().savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return display_bundle(self, f"ClusterBrowser of {self.states.meta['run']}, {len(self.rows):,} states.")


def _chip(k: int) -> str:
    return chip(int(k), cluster_color(int(k)))


def _figure(image: str, caption: str) -> str:
    return f"<figure>{image}<figcaption class=soft>{caption}</figcaption></figure>"
