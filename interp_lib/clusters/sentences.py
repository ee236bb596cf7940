"""Sentences about clusters that write themselves from the game's concepts, and a reader who knows nothing else.

A statement is a range of one concept that a frame shows ("ledge within 2 cells"). Of each cluster the three are told
whose share of its states is farthest above their share elsewhere, no two of one concept and none that says much the
same as another. Half of the levels choose them and give the numbers, a quarter has to confirm each, or it is dropped,
and on the last quarter :func:`read_back` measures whether the sentences say which cluster a frame is of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..common.errors import InterpError
from ..common.statistics import Interval, columns, group_sums, interval_of, ratio_interval, sums_interval
from ..envs.concepts import CONCEPTS
from .states import StateSet

FACTS = 3
LEAST_DIFFERENCE = 0.1  # between shares, or it isn't told
MOST_ALIKE = 0.7  # correlation of two statements
QUANTILES = (0.25, 0.5, 0.75)  # of a concept, where statements have bounds
_STILL = 0.05  # cells or cells a step: on neither side
_TRUTHS = {
    "on_ground": ("airborne", "on the ground"),
    "gap_fits": ("beside the next gap", "in line with the next gap"),
    "key_ready": ("no key to throw", "a key to throw"),
    "facing_right": ("faces left", "faces right"),
}
_SIDES = {
    "vx": ("moves left", "moves right"),
    "vy": ("falls", "rises"),
    "gap_offset": ("next gap to the left", "next gap to the right"),
    "fruit_offset": ("nearest fruit to the left", "nearest fruit to the right"),
    "junk_offset": ("nearest bad food to the left", "nearest bad food to the right"),
    "goal_above": ("goal below", "goal above"),
    "landing_rise": ("next landing below the feet", "next landing above the feet"),
}
_AMOUNTS = {
    "x": "{} from the left edge",
    "height": "{} above the ground",
    "wall_rise": "next wall {} high",
    "ledge_drop": "ledge {} deep",
    "gap_width": "next gap {} wide",
    "fruits": "{} fruits in the frame",
    "ceiling_above": "ceiling {} above the head",
    "jumps_left": "{} jumps left",
    "goal_distance": "goal {} away",
    "fire_height": "{} above the fire",
    "jump_charge": "jump charged {}",
}
_NOUNS = {"junk": "bad food"}
_GOALS = {"coinrun": "coin", "fruitbot": "presents", "jumper": "carrot", "ninja": "mushroom"}
_NONE_AND_SOME = {  # where a bound is 0
    "fruits": ("no fruits in the frame", "fruits in the frame"),
    "jump_charge": ("jump not charged", "jump charged"),
}
_QUARTERS = ("to the right", "above", "to the left", "below")


class Statement(NamedTuple):
    """A concept is above ``low`` and at most ``high``; what the frame doesn't show is so where ``absent``."""

    concept: str
    text: str
    low: float
    high: float
    absent: bool = False


class Fact(NamedTuple):
    """A statement, its share of the states of a cluster and of all others, and the difference on levels that check."""

    statement: Statement
    share: float
    elsewhere: float
    checked: Interval

    @property
    def confirmed(self) -> bool:
        """Whether the share is larger in the cluster on the levels that check, with the whole interval."""
        return self.checked.low > 0


@dataclass(frozen=True)
class Sentence:
    """What distinguishes a cluster: its ``share`` of the states and up to :data:`FACTS` facts, the strongest first.

    ``chosen`` are those that half of the levels chose, ``facts`` those of them that other levels confirmed.
    """

    share: float
    chosen: tuple[Fact, ...]

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Those of ``chosen`` that are said."""
        return tuple(fact for fact in self.chosen if fact.confirmed)

    def __str__(self) -> str:
        parts = [
            f"{fact.statement.text} {fact.share:.0%} ({'' if i else 'elsewhere '}{fact.elsewhere:.0%})"
            for i, fact in enumerate(self.facts)
        ]
        text = "; ".join(parts) or "no concept distinguishes it on other levels"
        return text[0].upper() + text[1:] + "."


def statements(known: pd.DataFrame, game: str) -> list[Statement]:
    """All that can be said of states with the concepts ``known``, whose quantiles are the bounds."""
    found: list[Statement] = []
    for name, kind in CONCEPTS[game].items():
        values = known[name].dropna()
        if not kind.shown or values.empty:
            continue
        bounds = sorted({round(float(bound), 1) for bound in values.quantile(list(QUANTILES))})
        if name in _TRUTHS:
            ranges = zip(_TRUTHS[name], ((-np.inf, 0.5), (0.5, np.inf)), strict=True)
            found += [Statement(name, text, *ends) for text, ends in ranges]
        elif name in _SIDES:
            ranges = zip(_SIDES[name], ((-np.inf, -_STILL), (_STILL, np.inf)), strict=True)
            found += [Statement(name, text, *ends) for text, ends in ranges]
        elif kind.unit == "degrees":
            found += [Statement(name, f"goal {w}", 90.0 * i, 90.0 * (i + 1)) for i, w in enumerate(_QUARTERS)]
        elif name.endswith("_ahead"):
            noun = _NOUNS.get(name[: -len("_ahead")], name[: -len("_ahead")])
            for bound in [*filter(None, bounds), np.inf]:
                where = "in the frame" if bound == np.inf else f"within {_in('cells', bound)}"
                found += [
                    Statement(name, f"{noun} {where}", -np.inf, bound),
                    Statement(name, f"no {noun} {where}", bound, np.inf, absent=True),
                ]
        else:
            if name in _NONE_AND_SOME and 0 in bounds:
                none, some = _NONE_AND_SOME[name]
                found += [Statement(name, none, -np.inf, 0), Statement(name, some, 0, np.inf)]
            above = [b for b in bounds if name not in _NONE_AND_SOME or b]
            amounts: list[tuple[str, float, float]] = [(f"at most {_in(kind.unit, b)}", -np.inf, b) for b in above]
            amounts += [(f"more than {_in(kind.unit, b)}", b, np.inf) for b in above]
            amounts += [(f"{a:g} to {_in(kind.unit, b)}", a, b) for a, b in pairwise(bounds)]
            found += [Statement(name, _AMOUNTS[name].format(amount), low, high) for amount, low, high in amounts]
    return [statement._replace(text=statement.text.replace("goal", _GOALS[game])) for statement in found]


def _in(unit: str, amount: float) -> str:
    return f"{amount:g}" + (" cell" + "s" * (amount != 1)) * (unit == "cells")


def holds(statement: Statement, known: pd.DataFrame, game: str) -> np.ndarray:
    """Whether ``statement`` is true of each state in ``known`` → bool (n,)."""
    values = known[statement.concept].to_numpy()
    absent = np.isnan(values)
    if CONCEPTS[game][statement.concept].unit == "degrees":
        values = (values + 45) % 360  # quarters around 0, 90, …
    return (values > statement.low) & (values <= statement.high) | absent & statement.absent


def write_sentences(states: StateSet) -> dict[int, Sentence]:
    """A sentence for each cluster that half of the levels show; {} without concepts, or with fewer than four levels."""
    choosing, checking, reading = _parts(states)
    if states.concepts is None or not (len(choosing) and len(checking) and len(reading)):
        return {}
    game = states.meta["game"]
    known, other = (states.concept_table.iloc[rows] for rows in (choosing, checking))
    all_of_them = statements(known, game)
    true, true_there = (np.stack([holds(s, of, game) for s in all_of_them], axis=1) for of in (known, other))
    code, there, level = states.code[choosing], states.code[checking], states.level[checking]
    found: dict[int, Sentence] = {}
    for k in np.unique(code):
        member = code == k
        inside, outside = ((true[of].sum(0) + 0.5) / (of.sum() + 1) for of in (member, ~member))
        chosen: list[int] = []
        for i in np.argsort(outside - inside, kind="stable"):
            if len(chosen) == FACTS or inside[i] - outside[i] < LEAST_DIFFERENCE:
                break
            if all(_tells_more(all_of_them, true, i, j) for j in chosen):
                chosen.append(i)
        found[int(k)] = Sentence(
            float(member.mean()),
            tuple(
                Fact(
                    all_of_them[i],
                    float(inside[i]),
                    float(outside[i]),
                    _difference(true_there[:, i], there == k, level),
                )
                for i in chosen
            ),
        )
    return found


def _tells_more(all_of_them: list[Statement], true: np.ndarray, one: int, other: int) -> bool:
    if all_of_them[one].concept == all_of_them[other].concept:
        return False
    pair = true[:, [one, other]].astype(np.float64)
    return bool(pair.std(0).all()) and abs(np.corrcoef(pair.T)[0, 1]) < MOST_ALIKE


def _difference(true: np.ndarray, member: np.ndarray, level: np.ndarray) -> Interval:
    """Share of states that a statement is ``true`` of, in a cluster less elsewhere; levels resampled."""
    index = np.unique(level, return_inverse=True)[1]
    counted = (true & member, member, true & ~member, ~member)
    sums = np.stack([group_sums(of, index, index.max() + 1) for of in counted], axis=1)

    def difference(total: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return total[:, 0] / total[:, 1] - total[:, 2] / total[:, 3]

    return sums_interval(sums, difference)


def facts_table(sentences: Mapping[int, Sentence]) -> pd.DataFrame:
    """A row a fact that was chosen for a cluster: both shares, their difference on other levels, whether it is said."""
    rows = [
        {
            "cluster": k,
            "statement": fact.statement.text,
            "share": fact.share,
            "elsewhere": fact.elsewhere,
            **columns("difference, other levels", fact.checked),
            "said": fact.confirmed,
        }
        for k, sentence in sentences.items()
        for fact in sentence.chosen
    ]
    return pd.DataFrame(rows).set_index(["cluster", "statement"]) if rows else pd.DataFrame()


def _parts(states: StateSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The kept states by level: half of the levels to choose, a quarter to check, a quarter to read → rows of each."""
    levels = np.random.default_rng(0).permutation(np.unique(states.level))
    cuts = len(levels) // 2, 3 * len(levels) // 4
    of = [states.kept & np.isin(states.level, part) for part in np.split(levels, cuts)]
    choosing, checking, reading = (np.flatnonzero(rows) for rows in of)
    return choosing, checking, reading


def read_back(states: StateSet, sentences: Mapping[int, Sentence]) -> pd.DataFrame:
    """Whether a reader tells from the sentences alone which cluster a state of a held-out level is of.

    The reader is declared: it takes a sentence at its word. Log odds of a cluster are those of its share, and for every
    fact, true or not, the log of how much likelier that is in the cluster than elsewhere, facts being independent; the
    largest wins. Beside it: always the commonest cluster; its own answers in any order (chance); the same reader with
    every sentence dealt to another cluster, on average; and a linear model of all statements, not of three a cluster.

    Returns:
        a row a reader: states, levels, accuracy with its 95% interval, and how far it is above the commonest cluster's.
        Levels are resampled.

    Raises:
        InterpError: there are no sentences to read.
    """
    if not sentences:
        raise InterpError("sentences need concepts of states on four levels or more. Collect again, or more.")
    game = states.meta["game"]
    choosing, _, reading = _parts(states)
    known, code = states.concept_table.iloc[reading], states.code[reading]
    names = np.array(sorted(sentences))
    shares = np.array([sentences[k].share for k in names])
    prior = np.log(shares / np.maximum(1 - shares, 1e-9))
    said = np.stack([_evidence(sentences[k], known, game) for k in names], axis=1)
    commonest = (code == names[shares.argmax()]).astype(float)
    answer = (prior + said).argmax(1)
    frequency = np.bincount(answer, minlength=len(names)) / len(answer)
    turns = [(prior + np.roll(said, turn, axis=1)).argmax(1) for turn in range(1, len(names))]
    dealt = [(names[turned] == code).astype(float) for turned in turns]
    readers = {
        "three facts a cluster": (names[answer] == code).astype(float),
        "sentences dealt to others": np.mean(dealt, axis=0) if dealt else np.zeros(len(code)),
        "commonest cluster": commonest,
        "chance": frequency @ (names[:, None] == code),
        "all statements, linear": (_linear(states, choosing, reading) == code).astype(float),
    }
    level = np.unique(states.level[reading], return_inverse=True)[1]
    count = int(level.max()) + 1
    size = group_sums(np.ones(len(code)), level, count)
    rows = {
        reader: {
            "states": len(code),
            "levels": count,
            **columns("accuracy", ratio_interval(group_sums(hit, level, count), size)),
            **columns("above the commonest", ratio_interval(group_sums(hit - commonest, level, count), size)),
        }
        for reader, hit in readers.items()
    }
    return pd.DataFrame(rows).T.rename_axis("reader").astype({"states": int, "levels": int})


def _evidence(sentence: Sentence, known: pd.DataFrame, game: str) -> np.ndarray:
    total = np.zeros(len(known))
    for fact in sentence.facts:
        true = holds(fact.statement, known, game)
        yes, no = np.log(fact.share / fact.elsewhere), np.log((1 - fact.share) / (1 - fact.elsewhere))
        total += np.where(true, yes, no)
    return total


def _linear(states: StateSet, choosing: np.ndarray, reading: np.ndarray) -> np.ndarray:
    """Clusters of the rows ``reading`` by least squares (ridge) on all statements, fitted on ``choosing``."""
    game, table = states.meta["game"], states.concept_table
    said = statements(table.iloc[choosing], game)
    x, y = (np.stack([holds(s, table.iloc[rows], game) for s in said], 1) * 1.0 for rows in (choosing, reading))
    codes = np.unique(states.code[choosing])
    wanted, mean = (states.code[choosing][:, None] == codes).astype(float), x.mean(0)
    gram = (x - mean).T @ (x - mean) + np.eye(len(said))
    weights = np.linalg.solve(gram, (x - mean).T @ (wanted - wanted.mean(0)))
    return codes[((y - mean) @ weights + wanted.mean(0)).argmax(1)]


def reading_verdict(table: pd.DataFrame) -> str:
    """What :func:`read_back` says about the sentences."""
    reader = table.loc["three facts a cluster"]
    shown = {name: f"{table.loc[name, 'accuracy']:.0%}" for name in table.index}
    accuracy, above = interval_of(reader, "accuracy"), interval_of(reader, "above the commonest")
    return (
        f"A reader with the sentences alone puts {accuracy.mean:.0%} [{accuracy.low:.0%}, {accuracy.high:.0%}] of "
        f"n = {int(reader['states']):,} states of {int(reader['levels'])} held-out levels in the right cluster, "
        f"always the commonest {shown['commonest cluster']}, chance {shown['chance']}, sentences dealt to other "
        f"clusters {shown['sentences dealt to others']}: the sentences "
        f"{'help' if above.low > 0 else 'are not shown to help'} ({100 * above.mean:+.0f} points "
        f"[{100 * above.low:+.0f}, {100 * above.high:+.0f}] over the commonest). A linear model of all statements gets "
        f"{shown['all statements, linear']}."
    )
