"""How far verdicts on pairs of questions can be trusted.

Against the cold start, which they were learnt from: agreement, calibration, and whether the order counts in
which two questions are shown. And against what is known: of a citation's own question and one that was asked
about another citation, the own one is right, whoever judges.

A verdict on a pair is "first", "second", or null where neither question is preferred.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from pydantic import BaseModel

from mkailin_assets.corpus.draws import by_hash
from mkailin_assets.intervals import Estimate, accuracy, mean
from mkailin_assets.questions.candidates import normalised

ALL = "all"
LEAST_TRIALS, MOST_TRIALS = 20, 2_000
# Scores no further apart are the same: a batch of another shape rounds the last digits otherwise.
ROUNDING = 1e-6
_BIN, _BINS = 0.1, 5


@dataclass(frozen=True)
class Calibration:
    """How sure an evaluator says it is of a preference, against how often the cold start agrees.

    `bins`: from, to, pairs, `confidence` (mean probability of the preferred question) and `agreement`
    (share), null where the bin is empty. `expected_error`: mean of their distance over the pairs (ECE).
    """

    bins: pl.DataFrame
    expected_error: float | None


@dataclass(frozen=True)
class PositionBias:
    """What becomes of a verdict when the same two questions are shown in the other order.

    `pairs` with a verdict in both orders; the share of them whose verdict `changed`, with its 95% interval,
    and the shares that went to whichever question came first and second. None where there are no such pairs.
    """

    pairs: int
    changed: Estimate | None
    prefers_first: float | None
    prefers_second: float | None


class Identification(BaseModel):
    """How often the own question was told from another citation's, by the evaluator and by the cold start.

    Shares with 95% bootstrap intervals over the trials; None where there are no trials.
    """

    trials: int
    evaluator: Estimate | None
    cold_start: Estimate | None
    lead: Estimate | None

    @property
    def beats_cold_start(self) -> bool:
        """The evaluator is to be used: the interval of its lead lies above 0, in twenty trials or more."""
        return self.lead is not None and self.trials >= LEAST_TRIALS and self.lead.low > 0

    def __str__(self) -> str:
        """The comparison in a sentence."""
        if not (self.evaluator and self.cold_start and self.lead):
            return "no trial could be made: materialize more branches; the cold start judges"
        return (
            f"told a citation's own question from another's in {self.evaluator.value:.1%} of {self.trials} "
            f"trials, the cold start in {self.cold_start.value:.1%}, difference {100 * self.lead.value:+.1f} "
            f"points (95% interval {100 * self.lead.low:+.1f} to {100 * self.lead.high:+.1f}); "
            f"the {'evaluator' if self.beats_cold_start else 'cold start'} judges"
        )


def preferred_by_score(first: pl.Series, second: pl.Series) -> pl.Series:
    """The verdict on each pair of which the questions' scores are given.

    The higher score is preferred, and a question that has a score to one that has none (null or NaN), as the
    cold start does; neither where both have none or the same.
    """
    one, other = (scores.cast(pl.Float64).fill_nan(None) for scores in (first, second))
    lead = pl.col("one") - pl.col("other")
    verdict = (
        pl.when((lead > ROUNDING) | (pl.col("one").is_not_null() & pl.col("other").is_null()))
        .then(pl.lit("first"))
        .when((lead < -ROUNDING) | (pl.col("one").is_null() & pl.col("other").is_not_null()))
        .then(pl.lit("second"))
    )
    return pl.DataFrame({"one": one, "other": other}).select(preferred=verdict).to_series()


def agreement(verdicts: pl.DataFrame) -> pl.DataFrame:
    """How often the first question of a pair is preferred, by branch and, in the first row, for all.

    `verdicts` has `branch` and `preferred`, and the first question is the one that ought to be: the cold
    start's choice, or the citation's own. Returns branch, pairs, decided, agreeing, and of the decided pairs
    the share that agrees, with the ends of Wilson's 95% interval; null where none is decided.
    """
    branches = verdicts.sort("branch").partition_by("branch", maintain_order=True)
    rows = []
    for branch, some in [(ALL, verdicts), *((some.item(0, "branch"), some) for some in branches)]:
        decided = some["preferred"].drop_nulls().to_list()
        share = accuracy(["first"] * len(decided), decided) if decided else None
        rows.append(
            {
                "branch": branch,
                "pairs": some.height,
                "decided": len(decided),
                "agreeing": decided.count("first"),
                "agreement": share and share.value,
                "low": share and share.low,
                "high": share and share.high,
            }
        )
    counts = dict.fromkeys(("pairs", "decided", "agreeing"), pl.Int64)
    shares = dict.fromkeys(("agreement", "low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema={"branch": pl.String, **counts, **shares})


def calibration(differences: Sequence[float]) -> Calibration:
    """Calibration of a reward model: `differences` are the scores of the right question minus the other's.

    By Bradley and Terry the higher one is right with the probability sigmoid(|difference|), 0.5 to 1. A
    difference of 0 agrees by half.
    """
    import numpy as np

    given = np.asarray(differences, dtype=np.float64)
    confidence = 1 / (1 + np.exp(-np.abs(given)))
    agrees = (np.sign(given) + 1) / 2
    place = np.minimum((confidence - 0.5) / _BIN, _BINS - 1).astype(int)
    rows = []
    for number in range(_BINS):
        inside = place == number
        some = bool(inside.any())
        rows.append(
            {
                "from": round(0.5 + number * _BIN, 1),
                "to": round(0.5 + (number + 1) * _BIN, 1),
                "pairs": int(inside.sum()),
                "confidence": float(confidence[inside].mean()) if some else None,
                "agreement": float(agrees[inside].mean()) if some else None,
            }
        )
    shares = dict.fromkeys(("from", "to"), pl.Float64)
    bins = pl.DataFrame(
        rows, schema={**shares, "pairs": pl.Int64, "confidence": pl.Float64, "agreement": pl.Float64}
    )
    distance = (pl.col("confidence") - pl.col("agreement")).abs() * pl.col("pairs")
    error = bins.select(distance.sum() / pl.col("pairs").sum()).item() if len(given) else None
    return Calibration(bins, error)


def position_bias(verdicts: pl.DataFrame) -> PositionBias:
    """Position bias of verdicts: `in_order` and `swapped` name the question preferred in either order.

    Both name it by its place in the pair, not by where it was shown. A pair without a verdict in one of the
    orders does not count.
    """
    both = verdicts.drop_nulls(["in_order", "swapped"])
    if both.is_empty():
        return PositionBias(0, None, None, None)
    same = accuracy(both["in_order"].to_list(), both["swapped"].to_list())
    changed = both.filter(pl.col("in_order") != pl.col("swapped"))
    # Who prefers the first question where it is shown first, and else the second, prefers the first place.
    first = changed.filter(in_order="first").height / both.height
    return PositionBias(
        pairs=both.height,
        changed=Estimate(1 - same.value, 1 - same.high, 1 - same.low),
        prefers_first=first,
        prefers_second=changed.height / both.height - first,
    )


def identification_trials(questions: pl.DataFrame, seed: int) -> pl.DataFrame:
    """For each citation its own question, and that of another citation of its branch.

    `questions` has pmid, branch, question (null: there is none) and further columns; of several rows of a
    citation one is drawn. Returns a row for each citation, by PMID: pmid, branch, other_pmid, every further
    column as own_... and other_..., and the reason why it is no trial, null if it is one. A question stands
    against the next one of its branch in an order that PMIDs and `seed` decide, whatever the order of the
    rows. Passed over are the same question and, where there are `contexts` (structs with `pmid`), one that
    found this very citation. At most 2,000 trials, drawn likewise: a judge is paid for each.
    """
    drawn = by_hash(f"trial {seed}")
    own = (
        questions.filter(pl.col("question").is_not_null())
        .sort("pmid", "question", maintain_order=True)
        .with_columns(drawn=drawn)
        .filter(pl.int_range(pl.len()).over("pmid") == pl.col("drawn") % pl.len().over("pmid"))
        .sort("branch", "drawn", "pmid")
        .with_columns(place=pl.int_range(pl.len()))
    )
    others = [place for some in own.partition_by("branch", maintain_order=True) for place in _others(some)]
    columns = [name for name in questions.columns if name not in {"pmid", "branch"}]
    other = own.select("place", "pmid", *columns).rename(
        {name: f"other_{name}" for name in ("pmid", *columns)}
    )
    place = pl.Series("other", others, dtype=own.schema["place"])
    trials = (
        own.with_columns(place)
        .join(other, left_on="other", right_on="place", how="left", validate="m:1")
        .rename({name: f"own_{name}" for name in columns})
    )
    is_one = pl.col("other").is_not_null()
    enough = pl.when(is_one).then(pl.col("drawn")).rank("ordinal") <= MOST_TRIALS
    return (
        questions.select("pmid", "branch")
        .unique()
        .join(trials.with_columns(enough=enough), on=["pmid", "branch"], how="left", validate="1:1")
        .with_columns(
            reason=pl.when(pl.col("own_question").is_null())
            .then(pl.lit("it has no question"))
            .when(~is_one)
            .then(pl.lit("no question of its branch can stand against it"))
            .when(~pl.col("enough"))
            .then(pl.lit(f"{MOST_TRIALS:,} trials are enough"))
        )
        .sort("pmid")
        .select(
            "pmid",
            "branch",
            "other_pmid",
            *(f"{whose}_{name}" for name in columns for whose in ("own", "other")),
            "reason",
        )
    )


def identified(own_scores: pl.Series, other_scores: pl.Series) -> pl.Series:
    """Of each trial 1 where the own question scores higher, 0 where the other one does, and 0.5 for a tie.

    As in `preferred_by_score`, a question without a score loses to one with a score.
    """
    return credits_of(preferred_by_score(own_scores, other_scores))


def credits_of(preferred: pl.Series) -> pl.Series:
    """Of each trial 1 for the verdict "first", which is the own question, 0 for "second", else 0.5."""
    return preferred.replace_strict({"first": 1.0, "second": 0.0, None: 0.5}, return_dtype=pl.Float64)


def compare(evaluator: pl.Series, cold_start: pl.Series) -> Identification:
    """The evaluator against the cold start on the same trials, of which each has 1, 0.5 or 0."""
    if len(evaluator) != len(cold_start):
        raise ValueError(f"{len(evaluator)} trials of the evaluator, {len(cold_start)} of the cold start")
    lead = (evaluator - cold_start).to_list()
    shares = [mean(one) if one else None for one in (evaluator.to_list(), cold_start.to_list(), lead)]
    return Identification(trials=len(lead), evaluator=shares[0], cold_start=shares[1], lead=shares[2])


def _others(branch: pl.DataFrame) -> list[int | None]:
    """Of each question of a branch the place of the one it stands against."""
    count, start = branch.height, branch.item(0, "place")
    pmids = branch["pmid"].to_list()
    asked = [normalised(question).casefold() for question in branch["question"]]
    found = [set[int]()] * count
    if "contexts" in branch.columns:
        found = [{context["pmid"] for context in contexts or ()} for contexts in branch["contexts"].to_list()]
    if len(set(asked)) == 1:
        return [None] * count

    def against(place: int) -> int | None:
        for step in range(place + 1, place + count):
            other = step % count
            if asked[other] != asked[place] and pmids[place] not in found[other]:
                return int(start + other)
        return None

    return [against(place) for place in range(count)]
