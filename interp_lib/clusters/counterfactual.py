"""Do the codes follow what happens in the game, or how it looks? The same states of the game in other looks.

A recording is played again, action by action, and must come out the same, frames included. At some of its steps every
environment's state is drawn in other looks (:mod:`interp_lib.envs.looks`), and after one more step with the recorded
action reward, end and the whole state must be those of the original: only the look is another. What keeps its group
then is compared with k-means on the feature h and on pixels, both fitted to the recorded look.

The encoder was trained with Procgen's own drawing. A look that is not drawn in training can change a code because the
whole agent is surprised; what the policy does then is measured beside it. Intervals are 95%, jackknife over levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from ..agents.sppo.agents import Embedding
from ..common.errors import InterpError
from ..common.grouping import k_means
from ..common.statistics import (
    SIGNIFICANT,
    Interval,
    columns,
    holm,
    interval_of,
    jackknife_interval,
    jackknife_p,
    without_each,
)
from ..envs.actions import by_effect
from ..envs.gamestate import read_state
from ..envs.looks import ANOTHER, CHOICES, LOOKS, looks_of, redraw, undo
from ..envs.procgen import Levels, ProcgenVec
from .states import clusters_of
from .study import ClusterStudy

CODES, RIVAL, BY_LOOKS = "codes", "k-means on h", "k-means on pixels"
BAR = 0.5  # of what is beyond chance: codes that keep more follow the game, codes that keep less follow the look
AS_PLAYED = "as played"


@dataclass(frozen=True)
class Counterfactual:
    """States of ``study`` in every look that the game can have; all is computed once, when it is first asked for.

    Attributes:
        study: of an SPPO agent in one of the games of :data:`~interp_lib.envs.looks.CHOICES`.
        times: at how many steps of the recording, evenly spaced, the kept states are looked at.
    """

    study: ClusterStudy
    times: int = 20
    seed: int = 0

    @cached_property
    def rows(self) -> np.ndarray:
        """The states that are looked at, int64 (m,)."""
        states = self.study.states
        at = np.unique(np.linspace(0, states.meta["steps"] - 1, self.times).round().astype(int))
        return np.flatnonzero(states.kept & np.isin(states.t, at))

    @cached_property
    def looks(self) -> list[str]:
        """Those that the game can have."""
        return looks_of(self.study.states.meta["game"])

    @cached_property
    def _drawn(self) -> tuple[dict[str, np.ndarray], dict[str, set[int]]]:
        """Frames by look, uint8 (m, 64, 64, 3), as played first; which of :data:`CHOICES` the recording shows.

        Raises:
            InterpError: the agent has no codes, or the game no looks; the recording can't be played again; or a look
                changes the game.
        """
        agent, states = self.study.agent, self.study.states
        clusters_of(agent, "draw in other looks")
        n, game = states.meta["num_envs"], states.meta["game"]
        if not self.looks:
            raise InterpError(f"other looks of {game} are not known.")
        levels = Levels.unseen(agent.config)
        played, painted = (ProcgenVec(game, n, levels, seed=states.meta["seed"]) for _ in range(2))
        frames: dict[str, list[np.ndarray]] = {look: [] for look in (AS_PLAYED, *self.looks)}
        shown: dict[str, set[int]] = {}
        try:
            for t in range(int(states.t[self.rows[-1]]) + 1):
                now = slice(t * n, (t + 1) * n)
                envs = states.env[self.rows[states.t[self.rows] == t]]
                before = [read_state(state) for state in played.get_state()] if len(envs) else []
                frames[AS_PLAYED].append(played.observation[envs])
                level = played.level_seeds
                step = played.step(states.action[now])
                recorded = (states.level[now], states.reward[now], states.done[now])
                if not all(map(np.array_equal, (level, step.reward, step.done), recorded)):
                    raise InterpError(f"step {t} of {states.path} can't be played again: the game goes another way.")
                if not len(envs):
                    continue
                for state in before:
                    for name in CHOICES[game]:
                        shown.setdefault(name, set()).add(int(state.values[name]))
                after = [read_state(state) for state in played.get_state()]
                for look in self.looks:
                    painted.set_state([redraw(state, look) for state in before])
                    frames[look].append(painted.observation[envs])
                    other = painted.step(states.action[now])
                    same = np.array_equal(other.reward, step.reward) and np.array_equal(other.done, step.done)
                    pairs = zip(painted.get_state(), after, strict=True)
                    if not (same and all(undo(state, look, original) == original.raw for state, original in pairs)):
                        raise InterpError(f"{look} changes what happens in {game}, at step {t} of {states.path}.")
        finally:
            played.close()
            painted.close()
        found = {look: np.concatenate(parts) for look, parts in frames.items()}
        if not np.array_equal(found[AS_PLAYED], states.frames(self.rows)):
            raise InterpError(f"{states.path} can't be played again: its frames are others.")
        return found, shown

    @property
    def frames(self) -> dict[str, np.ndarray]:
        """The states :attr:`rows` by look, uint8 (m, 64, 64, 3), as played first."""
        return self._drawn[0]

    @cached_property
    def trained(self) -> dict[str, bool]:
        """Look → whether training draws it: other backgrounds or grounds, where the recording shows several."""
        shown = self._drawn[1]
        return {k: all(v == ANOTHER and len(shown[n]) > 1 for n, v in LOOKS[k].items()) for k in self.looks}

    @cached_property
    def embeddings(self) -> dict[str, Embedding]:
        """What the network makes of them, by look; as played, what it made of them when they were recorded."""
        agent, states, rows = self.study.agent, self.study.states, self.rows
        own = agent.heads(states.feature[rows], states.code[rows])
        recorded = Embedding(*own, states.feature[rows], states.fdr[rows], states.code[rows])
        return {AS_PLAYED: recorded} | {look: agent.embed(self.frames[look]) for look in self.looks}

    @cached_property
    def labels(self) -> dict[str, dict[str, np.ndarray]]:
        """Grouping → look → group of each state, int64 (m,); k-means is fitted to the recorded look."""
        states, num_codes = self.study.states, self.study.states.num_codes
        on_h = k_means(states.feature, num_codes, self.seed)
        on_pixels = k_means(_flat(self.frames[AS_PLAYED]), num_codes, self.seed)
        return {
            CODES: {look: seen.code for look, seen in self.embeddings.items()},
            RIVAL: {look: on_h.predict(seen.feature) for look, seen in self.embeddings.items()},
            BY_LOOKS: {look: on_pixels.predict(_flat(frames)) for look, frames in self.frames.items()},
        }

    # -- measures: sums by level, so that one level can be left out at a time ------------------------------------------

    @cached_property
    def _level(self) -> np.ndarray:
        return np.unique(self.study.states.level[self.rows], return_inverse=True)[1]

    def _by_level(self, *values: np.ndarray) -> np.ndarray:
        """Columns (m,) → their sums by level, float64 (levels, number of columns)."""
        sums = np.zeros((self._level.max() + 1, len(values)))
        np.add.at(sums, self._level, np.stack(values, 1).astype(np.float64))
        return sums

    def _of(self, grouping: str, look: str) -> np.ndarray:
        """Sums by level: states that keep their group, states, and states in each group, before and after."""
        before, after = self.labels[grouping][AS_PLAYED], self.labels[grouping][look]
        each = np.eye(self.study.states.num_codes)
        return self._by_level(before == after, np.ones(len(before)), *each[before].T, *each[after].T)

    @cached_property
    def kept(self) -> pd.DataFrame:
        """Which groups stay: index (look, grouping); share ``kept``, ``by chance`` and ``beyond chance``.

        By chance: a state and the other look of any state share a group. Beyond chance: (kept − by chance) / (1 − by
        chance), Cohen's kappa: 1, all stay; 0, the look decides as much as if states were exchanged.
        """
        table = {}
        for look in self.looks:
            for grouping in (CODES, RIVAL, BY_LOOKS):
                sums = self._of(grouping, look)
                table[look, grouping] = {
                    **columns("kept", _interval(sums, _kept, (0.0, 1.0))),
                    **columns("by chance", _interval(sums, _chance, (0.0, 1.0))),
                    **columns("beyond chance", _interval(sums, _kappa, (-1.0, 1.0))),
                }
        return pd.DataFrame(table).T.rename_axis(["look", "grouping"])

    @cached_property
    def differences(self) -> pd.DataFrame:
        """Codes minus k-means on h, and minus k-means on pixels, beyond chance: paired by level, p corrected (Holm)."""
        table, p = {}, []
        for look in self.looks:
            for rival in (RIVAL, BY_LOOKS):
                sums = np.hstack([self._of(CODES, look), self._of(rival, look)])
                half = sums.shape[1] // 2
                value, without = _leaving_out(sums, lambda s, h=half: _kappa(s[:, :h]) - _kappa(s[:, h:]))
                ends = jackknife_interval(value, without, bounds=(-2.0, 2.0))
                raw = _interval(sums, lambda s, h=half: _kept(s[:, :h]) - _kept(s[:, h:]), (-1.0, 1.0))
                table[look, f"{CODES} − {rival}"] = columns("kept", raw) | columns("beyond chance", ends)
                p.append(jackknife_p(value, without))
        return pd.DataFrame(table).T.rename_axis(["look", "difference"]).assign(p=holm(p))

    @cached_property
    def surprise(self) -> pd.DataFrame:
        """How strongly pixels change, and the policy: index look; with 95% intervals.

        Columns: whether training draws the look; ``states``, ``levels``; share of states whose nearest frame of another
        level (Euclidean, among the frames as played) becomes another; KL(policy ‖ policy in the look) in nats, over the
        policy's mean entropy, and where the code stays and where it changes; share of states whose most probable
        action, and effect in the game, stay.
        """
        level, played = self.study.states.level[self.rows], _flat(self.frames[AS_PLAYED])
        game, one = self.study.states.meta["game"], np.ones(len(level))
        near = _nearest(played, played, level)
        log = log_softmax(self.embeddings[AS_PLAYED].logits.astype(np.float64), axis=1)
        policy, table = np.exp(log), {}
        for look in self.looks:
            other = log_softmax(self.embeddings[look].logits.astype(np.float64), axis=1)
            kl = (policy * (log - other)).sum(1)
            stays = self.labels[CODES][AS_PLAYED] == self.labels[CODES][look]
            moved = _nearest(_flat(self.frames[look]), played, level) != near
            effect = by_effect(policy, game).argmax(1) == by_effect(np.exp(other), game).argmax(1)
            ratios = {
                "other nearest frame": (moved, one),
                "KL (nats)": (kl, one),
                "KL (share of entropy)": (kl, -(policy * log).sum(1)),
                "KL, code stays": (kl * stays, stays),
                "KL, code changes": (kl * ~stays, ~stays),
                "same most probable action": (log.argmax(1) == other.argmax(1), one),
                "same most probable effect": (effect, one),
            }
            row: dict[str, float] = {
                "trained": self.trained[look],
                "states": len(level),
                "levels": int(self._level.max()) + 1,
            }
            for name, (part, whole) in ratios.items():
                bounds = (0.0, np.inf if name.startswith("KL") else 1.0)
                row |= columns(name, _interval(self._by_level(part, whole), _kept, bounds))
            table[look] = row
        return pd.DataFrame(table).T.rename_axis("look").infer_objects()

    @property
    def verdict(self) -> str:
        """What the tables say together.

        Judged in the look in which the codes keep least, of those that training draws or, where it draws one only, of
        those that Procgen has for harder levels: the codes follow the game where they keep more than :data:`BAR` of
        what is beyond chance there, with the whole interval.
        """
        surprise, kept = self.surprise, self.kept
        own = [look for look in self.looks if ANOTHER in LOOKS[look].values()]
        judged = [look for look in own if self.trained[look]]
        look = min(judged or own, key=lambda name: kept.loc[(name, CODES), "beyond chance"])
        codes = interval_of(kept.loc[look, CODES], "beyond chance")
        follow = "the game rather than its look" if codes.low > BAR else "the look rather than the game"
        if codes.low <= BAR <= codes.high:
            follow = "game and look alike, as far as these states can tell"
        if np.isnan(codes.low):
            follow = "nothing that could be told: all states have one code"
        among = "in training" if self.trained[look] else "that Procgen has for harder levels"
        first = (
            f"The codes follow {follow}: in the look that changes them most of those {among} ({look}), they keep "
            f"{codes.mean:.0%} [{codes.low:.0%}, {codes.high:.0%}] of what is beyond chance (bar {BAR:.0%}; n = "
            f"{surprise.loc[look, 'states']:,} states of {surprise.loc[look, 'levels']} levels)."
        )
        if not judged:
            first += " No look here is drawn in training, so a code that changes may be the whole agent's surprise."
        return "\n".join([first, *map(self._sentence, self.looks), self._against(RIVAL), self._against(BY_LOOKS)])

    def _sentence(self, look: str) -> str:
        kept, of = self.kept.loc[look], self.surprise.loc[look]
        codes, moved = interval_of(kept.loc[CODES], "kept"), of["other nearest frame"]
        parts = [f"{of[f'KL, code {what}']:.2f} where the code {what}" for what in ("stays", "changes")]
        return (
            f"{look.capitalize()} ({'drawn' if of['trained'] else 'never drawn'} in training) moves {moved:.0%} "
            f"of the nearest frames and keeps {codes.mean:.0%} [{codes.low:.0%}, {codes.high:.0%}] of the codes "
            f"(chance {kept.loc[CODES, 'by chance']:.0%}), {kept.loc[RIVAL, 'kept']:.0%} of the groups of {RIVAL} and "
            f"{kept.loc[BY_LOOKS, 'kept']:.0%} of {BY_LOOKS}. The policy changes by {of['KL (nats)']:.2f} nats, "
            f"{of['KL (share of entropy)']:.0%} of its entropy ({', '.join(parts)}); its most probable effect stays in "
            f"{of['same most probable effect']:.0%}."
        )

    def _against(self, rival: str) -> str:
        of = self.differences.xs(f"{CODES} − {rival}", level="difference")
        clear = of[of["p"] < SIGNIFICANT]
        parts = [f"{row['beyond chance']:+.2f} ({look})" for look, row in clear.iterrows()]
        if not parts:
            return f"Codes and {rival} do not differ detectably beyond chance (smallest p {of['p'].min():.2f})."
        return (
            f"Codes minus {rival}, beyond chance, corrected: {', '.join(parts)}; {len(of) - len(clear)} not detected."
        )


def _flat(frames: np.ndarray) -> np.ndarray:
    return frames.reshape(len(frames), -1).astype(np.float32) / 255


def _nearest(points: np.ndarray, among: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The nearest of ``among`` (m, d) from another level to each of ``points`` (m, d) → int64 (m,)."""
    distance = (
        np.square(among).sum(1) - 2 * points @ among.T
    )  # Euclidean and squared, but for what is the same in a row
    distance[level[:, None] == level] = np.inf
    return distance.argmin(1)


def _kept(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[:, 0] / sums[:, 1]


def _chance(sums: np.ndarray) -> np.ndarray:
    before, after = np.split(sums[:, 2:], 2, axis=1)
    return (before * after).sum(1) / sums[:, 1] ** 2


def _kappa(sums: np.ndarray) -> np.ndarray:
    chance = _chance(sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (_kept(sums) - chance) / (1 - chance)


def _leaving_out(sums: np.ndarray, statistic: Callable) -> tuple[float, np.ndarray]:
    """A statistic of (R, C) sums: over all levels, and without each."""
    value, *without = statistic(without_each(sums))
    return float(value), np.array(without)


def _interval(sums: np.ndarray, statistic: Callable, bounds: tuple[float, float]) -> Interval:
    return jackknife_interval(*_leaving_out(sums, statistic), bounds=bounds)
