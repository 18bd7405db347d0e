"""The evaluator at work: what it is taught, what it says of pairs of questions, and how far it is trusted.

It is taught on the cold start's preferences, and measured on held-out citations: against the cold start, and
where the truth is known, against another citation's question. Only if it beats the cold start there, by more
than chance, does it judge.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from mkailin_assets.checkpoints import Published, name_of, publish_once
from mkailin_assets.corpus.draws import by_hash
from mkailin_assets.intervals import columns_of
from mkailin_assets.preferences.agreement import (
    ALL,
    Calibration,
    Identification,
    PositionBias,
    agreement,
    calibration,
    compare,
    credits_of,
    identification_trials,
    identified,
    position_bias,
    preferred_by_score,
)
from mkailin_assets.preferences.cold_start import DocumentSimilarity, question_scores
from mkailin_assets.preferences.evaluator import (
    Evaluator,
    EvaluatorTuning,
    evaluator_fingerprint,
    evaluator_text,
    load_evaluator,
    train_evaluator,
)
from mkailin_assets.preferences.judge import judged
from mkailin_assets.preferences.tables import EvaluatorCheckpoint
from mkailin_assets.questions.candidates import document_of
from mkailin_assets.retrieval.pairs import split_of_pmid
from mkailin_assets.retrieval.update import one_row
from mkailin_resources.generation import Ask
from mkailin_resources.models.interface import TextGenerator
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.storage import Storage
from mkailin_resources.trainees import Trainees

SEED = 20
_SIDES = ("first", "second")
# Of each pair: pmid, preferred ("first", "second" or null), in_order and swapped likewise, difference (the
# score of the first minus the second, null without scores), reason (why neither), fingerprints of its texts.
Judge = Callable[[pl.DataFrame], pl.DataFrame]


class StaleEvaluator(RuntimeError):
    """The evaluator that was measured is not the one that the settings name."""


@dataclass(frozen=True)
class Measured:
    """What an evaluator came to on held-out citations; `agreed` is by branch, with all in the first row.

    `by_role` is the agreement of who always prefers the generator that wins more often: to learn no more than
    that is to learn no more than a style.
    """

    agreed: pl.DataFrame
    by_role: float | None
    calibration: Calibration | None
    bias: PositionBias | None
    identification: Identification


def pairs_to_judge(
    preferences: pl.DataFrame, contexts: pl.DataFrame, citations: pl.DataFrame, titles: Mapping[int, str]
) -> pl.DataFrame:
    """The pairs of a `ColdStartPreference` table as evaluators read them; first is what the cold start chose.

    pmid, branch, title, abstract, heading_uis, margin, kept, split, and of the first and the second question
    its role, text, contexts and `context_titles`. `contexts` is CandidateContexts, `citations` is
    BranchCitation, `titles` are those of the contexts. A pair that lacks a question is not among them.
    """
    found = contexts.select("pmid", "role", "heading_uis", "contexts")
    pairs = preferences.filter(pl.col("rejected_question").is_not_null()).select(
        "pmid",
        "branch",
        "margin",
        "kept",
        first_role="chosen_role",
        first_question="chosen_question",
        second_role="rejected_role",
        second_question="rejected_question",
    )
    for side in _SIDES:
        of_side = found.select("pmid", **{f"{side}_role": "role", f"{side}_contexts": "contexts"})
        pairs = pairs.join(of_side, on=["pmid", f"{side}_role"], how="left", validate="1:1").with_columns(
            _titles(f"{side}_contexts", titles).alias(f"{side}_context_titles")
        )
    headings = found.select("pmid", "heading_uis").unique("pmid", keep="first")
    return (
        pairs.join(citations.select("pmid", "title", "abstract"), on="pmid", validate="1:1")
        .join(headings, on="pmid", how="left", validate="1:1")
        .with_columns(split=split_of_pmid())
        .sort("pmid")
    )


def to_teach(pairs: pl.DataFrame, benchmark: Collection[int]) -> pl.DataFrame:
    """The kept pairs of `pairs_to_judge` as `train_evaluator` takes them, none of the benchmark's."""
    names = {"first": "chosen", "second": "rejected"}
    renamed = {
        f"{side}_{what}": f"{verdict}_{what}"
        for side, verdict in names.items()
        for what in ("question", "context_titles")
    }
    return pairs.filter("kept", ~pl.col("pmid").is_in(list(benchmark))).rename(renamed)


def learned(evaluator: Evaluator) -> Judge:
    """A reward model as a judge: the question of the higher score is preferred."""

    def verdicts(pairs: pl.DataFrame) -> pl.DataFrame:
        most = evaluator.record.max_characters
        rows = pairs.to_dicts()
        first, second = (
            pl.Series(
                evaluator.scores(
                    [
                        evaluator_text(
                            document_of(row), row[f"{side}_question"], row[f"{side}_context_titles"], most
                        )
                        for row in rows
                    ]
                ),
                dtype=pl.Float64,
            )
            for side in _SIDES
        )
        preferred = preferred_by_score(first, second)
        return pairs.select(
            "pmid",
            preferred=preferred,
            in_order=preferred,
            swapped=preferred,
            difference=first - second,
            reason=pl.lit(None, pl.String),
            fingerprints=pl.lit([], pl.List(pl.String)),
        )

    return verdicts


def asked(generator: TextGenerator, ask: Ask) -> Judge:
    """A language model as a judge: what it prefers in both orders is preferred."""

    def verdicts(pairs: pl.DataFrame) -> pl.DataFrame:
        return judged(pairs, generator, ask).select(
            "pmid",
            "preferred",
            "in_order",
            "swapped",
            "reason",
            "fingerprints",
            difference=pl.lit(None, pl.Float64),
        )

    return verdicts


def judge_of(made: Mapping[str, Any], trainees: Trainees, storage: Storage, ask: Ask) -> Judge:
    """The judge of an `EvaluatorCheckpoint` row: a learned one, or the language model of the settings.

    Raises `StaleEvaluator` where the settings name another one by now.
    """
    named = trainees.judge.name if trainees.judge else trainees.evaluator
    if made["kind"] == "judge" and trainees.judge and named == made["evaluator"]:
        return asked(trainees.judge, ask)
    if made["kind"] == "judge" or trainees.judge:
        raise StaleEvaluator(
            f"evaluator_checkpoint was measured with {made['evaluator']}, the settings name {named} by now: "
            "materialize evaluator_checkpoint again"
        )
    return learned(load_evaluator(storage.local_folder(made["uri"])))


def measure(judge: Judge, pairs: pl.DataFrame, similarity: DocumentSimilarity, most: int) -> Measured:
    """Measure a judge on the held-out ones of `pairs_to_judge`, at most so many, by a hash of the PMID."""
    held_out = pairs.filter(split="held_out").sort(by_hash("trial"))
    of_cold_start = held_out.filter("kept").head(most)
    verdicts = of_cold_start.select("pmid", "branch").join(judge(of_cold_start), on="pmid", validate="1:1")
    differences = verdicts["difference"].drop_nulls().to_list()
    return Measured(
        agreed=agreement(verdicts),
        by_role=_by_role(pairs.filter("kept", split="train"), of_cold_start),
        calibration=calibration(differences) if differences else None,
        # One that gives each question a score of its own has none.
        bias=position_bias(verdicts) if verdicts["difference"].null_count() else None,
        identification=_identification(judge, held_out.head(most), similarity),
    )


def taught(
    pairs: pl.DataFrame,
    base: ModelName | None,
    settings: EvaluatorTuning,
    storage: Storage,
    log: Callable[[str], None],
) -> tuple[Published, Evaluator]:
    """The evaluator that these pairs (`to_teach`) make of a base, ready to judge; trained at most once.

    Raises what `train_evaluator` raises.
    """
    published = publish_once(
        storage,
        "evaluators",
        evaluator_fingerprint(base, pairs, settings),
        lambda folder, work: train_evaluator(base, pairs, settings, folder, work, log),
    )
    return published, load_evaluator(storage.local_folder(published.uri))


def learned_row(published: Published, evaluator: Evaluator, measured: Measured) -> pl.DataFrame:
    """The `EvaluatorCheckpoint` row of a learned evaluator."""
    record = evaluator.record
    return _row("reward", name_of(record), measured, published.uri, record.fingerprint, record.pairs)


def judge_row(judge: TextGenerator, measured: Measured) -> pl.DataFrame:
    """The `EvaluatorCheckpoint` row of a language model that judges."""
    return _row("judge", judge.name, measured)


def no_evaluator(evaluator: str, reason: str) -> pl.DataFrame:
    """The `EvaluatorCheckpoint` row where the cold start judges, with the reason."""
    none = {"pairs": 0, "held_out_pairs": 0, "trials": 0, "judges": False}
    return one_row(EvaluatorCheckpoint, kind="cold_start", evaluator=evaluator, reason=reason, **none)


def _row(  # noqa: PLR0917
    kind: str,
    evaluator: str,
    measured: Measured,
    uri: str | None = None,
    fingerprint: str | None = None,
    pairs: int = 0,
) -> pl.DataFrame:
    overall, told = measured.agreed.filter(branch=ALL).row(0, named=True), measured.identification
    bias, calibrated = measured.bias and measured.bias.changed, measured.calibration
    return one_row(
        EvaluatorCheckpoint,
        kind=kind,
        evaluator=evaluator,
        fingerprint=fingerprint,
        uri=uri,
        pairs=pairs,
        held_out_pairs=overall["pairs"],
        agreement=overall["agreement"],
        agreement_low=overall["low"],
        agreement_high=overall["high"],
        by_role=measured.by_role,
        calibration_error=calibrated and calibrated.expected_error,
        position_bias=bias and bias.value,
        trials=told.trials,
        identified=told.evaluator and told.evaluator.value,
        cold_start_identified=told.cold_start and told.cold_start.value,
        **columns_of("lead", told.lead),
        judges=told.beats_cold_start,
        reason=str(told),
    )


def _by_role(train: pl.DataFrame, held_out: pl.DataFrame) -> float | None:
    if train.is_empty() or held_out.is_empty():
        return None
    favourite = train["first_role"].mode().sort()[0]
    return float((held_out["first_role"] == favourite).sum()) / held_out.height


def _identification(judge: Judge, pairs: pl.DataFrame, similarity: DocumentSimilarity) -> Identification:
    # Both questions of a citation, of which one is drawn: the one that the cold start chose would favour it.
    questions = pl.concat(
        pairs.select(
            "pmid",
            "branch",
            "title",
            "abstract",
            "heading_uis",
            question=f"{side}_question",
            contexts=f"{side}_contexts",
            context_titles=f"{side}_context_titles",
        )
        for side in _SIDES
    )
    trials = identification_trials(questions, SEED).filter(pl.col("reason").is_null())
    if trials.is_empty():
        return compare(pl.Series([], dtype=pl.Float64), pl.Series([], dtype=pl.Float64))
    scores = {whose: _scores_for(trials, whose, similarity) for whose in ("own", "other")}
    shown = trials.select(
        "pmid",
        "branch",
        title="own_title",
        abstract="own_abstract",
        first_question="own_question",
        second_question="other_question",
        first_context_titles="own_context_titles",
        second_context_titles="other_context_titles",
    )
    verdicts = trials.select("pmid").join(judge(shown), on="pmid", validate="1:1", maintain_order="left")
    return compare(credits_of(verdicts["preferred"]), identified(scores["own"], scores["other"]))


def _scores_for(trials: pl.DataFrame, whose: str, similarity: DocumentSimilarity) -> pl.Series:
    """MeSH score of one of the two questions for the citation of the trial."""
    contexts = trials.select(
        "pmid",
        role=pl.lit(whose),
        question=f"{whose}_question",
        heading_uis="own_heading_uis",
        contexts=f"{whose}_contexts",
    )
    scored = question_scores(contexts, similarity)
    return contexts.join(scored, on="pmid", how="left", validate="1:1", maintain_order="left")["score"]


def _titles(contexts: str, titles: Mapping[int, str]) -> pl.Expr:
    def of(found: pl.Series) -> list[str]:
        return [titles[pmid] for pmid in found.struct.field("pmid") if titles.get(pmid)]

    return pl.col(contexts).fill_null([]).map_elements(of, return_dtype=pl.List(pl.String))
