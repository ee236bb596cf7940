"""``PrototypeBrowser``: step through the episodes of a ProtoSAC agent and see which prototypes decide."""

from __future__ import annotations

import html
from functools import cached_property
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..common.labels import percent
from ..common.pictures import encoded
from ..common.style import use_style
from ..common.widgets import chip, display_bundle, facts, picture
from .episode_frames import EpisodeFrames
from .explained_video import explained_frames, leader_strip
from .figures import MOST_RIDGES, draw_action
from .states import picture_states
from .study import PrototypeStudy
from .traces import with_frames

TOP = 4  # prototypes shown beside a state


class PrototypeBrowser:
    """Browse the decisions of a ProtoSAC agent: a notebook shows it as a widget, everything else as a picture.

    Choose an episode, move the slider or press play: the state, the prototypes with most weight, the action they make
    and what the critics expect. Click a prototype for its gallery; click a state in there to go to that moment.

    Args:
        study: the agent and its evaluation episodes.

    >>> PrototypeBrowser(PrototypeStudy.record(load_agent(run), "pendulum", 10))
    """

    def __init__(self, study: PrototypeStudy) -> None:
        self.study = study
        self.frames = EpisodeFrames(study.traces)
        self.start_episode = study.typical_episode
        changes = np.flatnonzero(np.diff(study.typical.leading))
        self.start_step = int(changes[0]) + 1 if len(changes) else 0  # where one prototype first takes over

    @cached_property
    def widget(self) -> Any:
        """The browser as an ipywidget, built when it is first asked for."""
        from .panels import Panels

        return Panels(self).box

    # -- one step ---------------------------------------------------------------------------------------------------

    def leaders(self, episode: int, step: int) -> list[int]:
        """The prototypes with the largest weights, largest first; at most four."""
        return self.study.decision(self.study.traces[episode], step).order[:TOP].tolist()

    def state_html(self, episode: int, step: int) -> str:
        """Frame, numbers, return so far, value, and a strip with the leader of every step."""
        trace = self.study.traces[episode]
        frame = self.frames.frame(episode, step)
        width, caption = min(frame.shape[1], 300), trace.caption(step)
        value = self.study.values[episode][step]
        numbers = {
            "state": caption,
            "return so far": f"<b>{trace.rewards[: step + 1].sum():.1f}</b> of {trace.total:.1f}",
            "value": f"<b>{value:.1f}</b> <span class=soft>(discounted return to come)</span>",
        }
        strip = picture(leader_strip(trace, self.study.colors), 300, "leading prototype at every step")
        now = 100 * (step + 0.5) / len(trace)
        return (
            f'<div class="interp now" data-episode="{episode}" data-step="{step}">'
            + picture(frame, width, f"episode of seed {trace.seed}, step {step}: {caption}")
            + facts({name: text for name, text in numbers.items() if text})
            + f'<div class=strip>{strip}<i style="left:{now:.2f}%"></i></div>'
            + f"<p class=soft>leading prototype, step 0 to {len(trace) - 1}</p>"
            + (f"<p class=soft>{html.escape(self.frames.note)}</p>" if self.frames.note else "")
            + "</div>"
        )

    def weight_html(self, episode: int, step: int, k: int) -> str:
        """The weight of prototype ``k`` as a bar, and what it would do alone."""
        weight, names = float(self.study.traces[episode].weights[step, k]), self.study.info.action_names
        actions = self.study.agent.prototypes.actions[k]
        alone = [f"{name} <b>{action:+.2f}</b>" for name, action in zip(names, actions, strict=True)]
        more = " …" if len(alone) > 3 else ""
        return (
            f'<div class="interp weight" data-prototype="{k}" data-weight="{weight:.4f}">'
            f"<b>{percent(weight)}</b> <span class=soft>{self.study.pictures.captions[k]}</span><div class=track>"
            f'<i style="width:{100 * weight:.1f}%;background:{self.study.colors[k]}"></i></div>'
            f"<span class=soft>alone: {', '.join(alone[:3])}{more}</span></div>"
        )

    def rest_html(self, episode: int, step: int) -> str:
        """What the prototypes that are not shown have to say."""
        shown = self.leaders(episode, step)
        others = self.study.agent.n_prototypes - len(shown)
        if not others:
            return ""
        rest = max(1 - float(self.study.traces[episode].weights[step, shown].sum()), 1e-9)
        return f'<p class="interp soft">the other {others}: {percent(rest)} of the weight</p>'

    def action_html(self, episode: int, step: int) -> str:
        """The action taken, dimension by dimension within its bounds, under what the leaders would do alone."""
        trace, (lows, highs) = self.study.traces[episode], self.study.bounds
        alone, rows = self.study.agent.prototypes.actions, []
        for i, (name, low, high) in enumerate(zip(self.study.info.action_names, lows, highs, strict=True)):
            value = float(trace.actions[step, i])
            ticks = "".join(
                f'<i style="left:{_along(alone[k, i], low, high)};background:{self.study.colors[k]};'
                f'height:{4 + 8 * trace.weights[step, k]:.1f}px"></i>'
                for k in reversed(self.leaders(episode, step))
            )
            rows.append(
                f"<span>{html.escape(name)}</span><span class=soft>{low:g}</span><div class=range>{ticks}"
                f'<b style="left:{_along(value, low, high)}"></b></div><span class=soft>{high:g}</span>'
                f"<span><b>{value:+.2f}</b></span>"
            )
        return (
            f'<div class="interp"><div class="actions">{"".join(rows)}</div><p class=soft>▲ taken; in colour: what '
            "each prototype above does alone, higher with more weight</p></div>"
        )

    # -- one prototype ----------------------------------------------------------------------------------------------

    def prototype_html(self, k: int) -> str:
        """What prototype ``k`` stands for: its state, its actions alone, how often it leads, when, and its value."""
        row, study = self.study.table.loc[f"P{k}"], self.study
        frame, caption = study.pictures.frames[k], study.pictures.captions[k]
        said = {
            "leads": f"<b>{percent(row['led'])}</b> of {len(study.leading):,} decisions",
            "mean weight": f"<b>{percent(row['mean_weight'])}</b>",
        }
        if row["led"] > 0:
            said |= {
                "when": f"<b>{row['when']:.0%}</b> into the episode <span class=soft>(median)</span>",
                "value": f"<b>{row['value']:.1f}</b> <span class=soft>(mean where it leads)</span>",
                "distance": f"<b>{row['distance']:.2g}</b> <span class=soft>(median D where it leads)</span>",
            }
        few = len(study.info.action_names) <= MOST_RIDGES
        action = "density; black: the action of its mean" if few else "central 90%; dot: the action of its mean"
        width = min(frame.shape[1], 200)
        return (
            f'<div class="interp prototype" data-prototype="{k}"><p>Prototype {chip(f"P{k}", study.colors[k])}</p>'
            f"<div class=row><figure>{picture(frame, width, f'the state of P{k}: {caption}')}"
            f"<figcaption class=soft>{caption or 'its state'}</figcaption></figure>"
            f"<figure>{picture(self._action_picture(k), 300, self._action_text(k))}"
            f"<figcaption class=soft>{action}</figcaption></figure>"
            f"{facts(said)}</div><p class=soft>{study.pictures.note}</p></div>"
        )

    def nearest_pictures(self, k: int) -> np.ndarray:
        """Pictures uint8 (m, H, W, 3) of the states nearest to prototype ``k``; a simulator may have to play first."""
        return picture_states(self.study, self.study.nearest[k])

    def _action_picture(self, k: int) -> np.ndarray:
        """The action distribution of one prototype, drawn as in the gallery figure, twice as sharp as the screen."""
        prototypes, names = self.study.agent.prototypes, self.study.info.action_names
        with matplotlib.rc_context():  # the reader's own figures keep their style
            use_style()
            figure = Figure(figsize=(3.0, max(1.5, 0.55 + 0.2 * len(names))), dpi=200)
            canvas, axes = FigureCanvasAgg(figure), figure.subplots()
            gaussian = prototypes.action_means[k], prototypes.action_stds[k]
            draw_action(axes, *gaussian, *self.study.bounds, names, self.study.colors[k])
            if len(names) == 1:
                axes.set_xlabel(f"{names[0]} alone", fontsize=8.5)
            canvas.draw()
        return np.array(canvas.buffer_rgba())[:, :, :3]

    def _action_text(self, k: int) -> str:
        lows, highs = (ends[k] for ends in self.study.action_intervals)
        parts = zip(self.study.info.action_names, self.study.agent.prototypes.actions[k], lows, highs, strict=True)
        return "; ".join(f"{name} {a:+.2f}, 90% within {low:+.2f} and {high:+.2f}" for name, a, low, high in parts)

    # -- display ----------------------------------------------------------------------------------------------------

    def image(self) -> np.ndarray:
        """The decision it opens with as a picture, uint8 (H, W, 3): what is shown where no widget can be."""
        return next(explained_frames(self.study, with_frames(self.study.typical, [self.start_step])))

    def _repr_png_(self) -> bytes:
        return encoded(self.image(), "png", optimize=True)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return display_bundle(self, f"PrototypeBrowser of {self.study.info.gym_id}, {len(self.study.traces)} episodes.")


def _along(value: float, low: float, high: float) -> str:
    """Where ``value`` lies between the bounds, for CSS."""
    return f"{100 * float(np.clip((value - low) / (high - low), 0, 1)):.2f}%"
