"""The loop: preferences of one round optimize the generator, whose questions make those of the next.

Round 0 is the start, a generator tuned on exemplars. Round 1 is optimized on the preferences between the two
candidates of each citation. For a later round the generator of the round before asks about the same
citations; its question stands against the one that was preferred until then, and the higher MeSH score wins.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from pydantic import BaseModel, Field

from mkailin_assets.adapters import AdapterRecord, read_record
from mkailin_assets.checkpoints import name_of, publish_once, trained_generator
from mkailin_assets.corpus.draws import by_hash
from mkailin_assets.intervals import Estimate, columns_of
from mkailin_assets.preferences.cold_start import bare
from mkailin_assets.preferences.optimization import (
    OptimizationRecord,
    PreferenceOptimization,
    TooFewPairs,
    optimization_fingerprint,
    optimize,
)
from mkailin_assets.preferences.tables import PreferredGenerator
from mkailin_assets.preferences.trial import Trial, is_better, lead, score_of
from mkailin_assets.retrieval.pairs import split_of_pmid
from mkailin_resources.generation import Ask
from mkailin_resources.storage import Storage
from mkailin_resources.trainees import Trainees

PAIR_COLUMNS = ("pmid", "title", "abstract", "chosen", "rejected", "chosen_score", "split")


class RoundRules(BaseModel):
    """How often the loop turns."""

    rounds: int = Field(default=1, ge=1, le=10, description="Rounds of preference optimization")
    citations_per_round: int = Field(
        default=2000, ge=20, description="Citations that a later round asks about, at most"
    )


@dataclass(frozen=True)
class Round:
    """A round: its number, the checkpoint, and the record of its training (None: the start)."""

    number: int
    uri: str
    name: str
    record: OptimizationRecord | None


@dataclass(frozen=True)
class Loop:
    """What the rounds need: who asks, on which ground, and where checkpoints go."""

    settings: PreferenceOptimization
    rules: RoundRules
    margin: float
    trial: Trial
    trainees: Trainees
    storage: Storage
    ask: Ask
    log: Callable[[str], None]

    def turn(
        self, start_uri: str, start_name: str, citations: pl.DataFrame, pairs: pl.DataFrame
    ) -> list[Round]:
        """All rounds, the start first; trained at most once each.

        `citations` are those the pairs are about (`trial.CITATION_COLUMNS`), `pairs` has `PAIR_COLUMNS`.
        Ends where a later round has too few. Raises `TooFewPairs` where the first one has, and what training
        and asking raise; whole rounds stay published.
        """
        rounds = [Round(0, start_uri, start_name, None)]
        for number in range(1, self.rules.rounds + 1):
            if number > 1:
                pairs = self._next_pairs(rounds[-1], citations, pairs)
                self.log(f"round {number}: {pairs.height:,} pairs from the questions of round {number - 1}")
            try:
                rounds.append(self._optimized(number, rounds[-1].uri, pairs))
            except TooFewPairs as error:
                if number == 1:
                    raise
                self.log(f"the loop ends with round {number - 1}: {error}")
                break
        return rounds

    def _optimized(self, number: int, start_uri: str, pairs: pl.DataFrame) -> Round:
        start = self.storage.local_folder(start_uri)
        trained_on = pairs.drop("chosen_score")
        published = publish_once(
            self.storage,
            "preferred",
            optimization_fingerprint(start, trained_on, self.settings),
            lambda folder, work: optimize(start, trained_on, self.settings, folder, work, self.log),
        )
        record = read_record(self.storage.local_folder(published.uri), OptimizationRecord)
        return Round(number, published.uri, name_of(record), record)

    def _next_pairs(self, before: Round, citations: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
        """The pairs of the next round, sorted by PMID; a citation without a clear preference has none."""
        asked = citations.join(pairs, on="pmid", how="semi").bottom_k(
            self.rules.citations_per_round, by=by_hash("round")
        )
        ground = Trial(asked.sort("pmid"), self.trial.searcher, self.trial.similarity, self.trial.k)
        generator = trained_generator(before.uri, self.trainees, self.storage)
        written = ground.scores({before.name: generator}, self.ask)
        return next_pairs(pairs, written, self.margin)

    def table(self, rounds: Sequence[Round]) -> pl.DataFrame:
        """The `PreferredGenerator` table of the rounds, each tried on the held-out citations."""
        askers = {str(one.number): trained_generator(one.uri, self.trainees, self.storage) for one in rounds}
        tried = None if self.trial.citations.is_empty() else self.trial.scores(askers, self.ask)
        return described(rounds, tried, self.storage)


def first_pairs(
    preferences: pl.DataFrame, citations: pl.DataFrame, benchmark: Collection[int] = ()
) -> pl.DataFrame:
    """The pairs of round 1, `PAIR_COLUMNS` by PMID: the kept `QuestionPreference` rows with their texts.

    Those about citations of the benchmark are not among them.
    """
    kept = preferences.filter("kept", ~pl.col("pmid").is_in(list(benchmark))).select(
        "pmid", "chosen_score", chosen="chosen_question", rejected="rejected_question"
    )
    return _with_split(kept.join(citations.select("pmid", "title", "abstract"), on="pmid", validate="1:1"))


def next_pairs(pairs: pl.DataFrame, written: pl.DataFrame, margin: float) -> pl.DataFrame:
    """The preferences between what was preferred until now and what the generator wrote since.

    `written` is what `Trial.scores` gives of the generator. A citation for which it has no question, the same
    one, or one whose score is within the margin, has no pair.
    """
    new = written.select("pmid", new="question", new_score="score")
    both = pairs.join(new, on="pmid", how="inner", validate="1:1")
    wins = pl.col("new_score") > pl.col("chosen_score")
    apart = (pl.col("new_score") - pl.col("chosen_score").fill_null(0.0)).abs() > margin
    differs = bare(pl.col("new")) != bare(pl.col("chosen"))
    clear = both.with_columns(pl.col("chosen_score").fill_null(0.0)).filter(apart, differs)
    return _with_split(
        clear.select(
            "pmid",
            "title",
            "abstract",
            chosen=pl.when(wins).then("new").otherwise("chosen"),
            rejected=pl.when(wins).then("chosen").otherwise("new"),
            chosen_score=pl.max_horizontal("new_score", "chosen_score"),
        )
    )


def described(rounds: Sequence[Round], tried: pl.DataFrame | None, storage: Storage) -> pl.DataFrame:
    """The `PreferredGenerator` table; `tried` is a trial of all rounds under their numbers, or None.

    Current is the round with the highest score of those that beat the start by more than chance: the 95%
    interval of the lead lies above 0. If none does, that is round 0.
    """
    # A round's number is its place.
    leads = {} if tried is None else {one.number: lead(tried, str(one.number), "0") for one in rounds[1:]}
    rows = [_row(one, tried, leads.get(one.number), storage) for one in rounds]
    better = [rows[number] for number, ahead in leads.items() if is_better(ahead, rows[number]["documents"])]
    current = max(better, key=lambda row: row["score"], default=rows[0])
    made = [row | {"is_current": row is current} for row in rows]
    return pl.DataFrame(made, schema=PreferredGenerator.create_empty().schema)


def _row(one: Round, tried: pl.DataFrame | None, ahead: Estimate | None, storage: Storage) -> dict[str, Any]:
    made = one.record or read_record(storage.local_folder(one.uri), AdapterRecord)
    score = None if tried is None else score_of(tried, str(one.number))
    row: dict[str, Any] = {
        "round": one.number,
        "generator": one.name,
        "fingerprint": made.fingerprint,
        "uri": one.uri,
        "base": made.base or None,
        "revision": made.revision or None,
        "pairs": 0,
        "held_out_pairs": 0,
        "steps": 0,
        "documents": 0 if tried is None else tried.filter(contestant="0").height,
        **columns_of("score", score),
        **columns_of("lead", ahead),
    }
    if one.record:
        losses = one.record.course.curve.train
        row |= {
            "pairs": one.record.pairs,
            "held_out_pairs": one.record.held_out_pairs,
            "steps": one.record.course.steps,
            "first_loss": losses[0][1],
            "last_loss": losses[-1][1],
            "reward_margin": one.record.held_out_margin,
            "reward_accuracy": one.record.held_out_accuracy,
        }
    return row


def _with_split(pairs: pl.DataFrame) -> pl.DataFrame:
    return pairs.with_columns(split=split_of_pmid()).select(PAIR_COLUMNS).sort("pmid")
