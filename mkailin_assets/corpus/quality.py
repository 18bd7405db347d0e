"""What is good enough to train on: signals of each question-answer pair, and the verdict with its reasons."""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
from pydantic import BaseModel, Field, field_validator

from mkailin_assets.corpus import signals
from mkailin_assets.corpus.tables import EvaluatedQA

# Rows looked at together: the words of more would fill the memory.
_ROWS = 2000


class QualityRules(BaseModel, frozen=True, extra="forbid"):
    """What a pair must satisfy to enter the training corpus; None: that does not matter.

    The figures are of PubMedQA's 500 expert-labelled development items, and of 2,104 pairs that the
    extractive agents made of PubMed.
    """

    min_question_words: int = Field(4, ge=1, description="Shorter questions say too little")
    max_question_words: int = Field(60, ge=1, description="Longer questions are no questions")
    min_answer_words: int = Field(5, ge=1, description="Shorter answers explain nothing")
    max_answer_words: int | None = Field(
        500, ge=1, description="Longer answers ramble; the longest conclusion of the 2,604 has 156 words"
    )
    min_answer_support: float | None = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of the answer's content words in its contexts: 98% of PubMedQA's conclusions "
        "reach it in their own abstract, 2% in another",
    )
    min_question_support: float | None = Field(
        0.2,
        ge=0,
        le=1,
        description="The same of the question, which must be answerable without the title: 99% of PubMedQA's "
        "reach it in their own abstract, 4% in another",
    )
    max_title_overlap: float | None = Field(
        0.9, ge=0, le=1, description="A question nearer to a title that asks nothing must itself ask"
    )
    max_copied_share: float | None = Field(
        None, ge=0, le=1, description="Copied answers are right, but not written: extractive agents only copy"
    )
    drop_opposite_decisions: bool = Field(
        False,
        description="Whether an answer that reads like the opposite of its decision leaves: of PubMedQA's "
        "right ones 7% (yes) and 19% (no) would, so by default only one that opens with the opposite does",
    )
    drop_contradicted: bool = Field(
        True, description="Whether an answer leaves that its contexts contradict, as a model judges"
    )
    languages: list[str] | None = Field(
        ["en"], min_length=1, description="Languages of the corpus (ISO 639-1); in doubt a pair stays"
    )
    max_toxicity: float | None = Field(
        0.95,
        ge=0,
        le=1,
        description="Probability that a sentence offends: of 123,349 sentences of medical texts 2 are above "
        "it, and both quote an insult",
    )
    drop_personal_data: bool = Field(
        True, description="Whether a pair leaves that holds an e-mail address, telephone or account number"
    )
    max_odd_characters: int | None = Field(
        0, ge=0, description="Control characters and the like are damage, pictures no science"
    )
    max_reading_grade: float | None = Field(
        None, description="School years that an answer asks for: abstracts take 17, and are not worse for it"
    )
    min_specificity: float | None = Field(
        None, ge=0, le=1, description="Information content of the most telling heading that is asked about"
    )
    min_mesh_score: float | None = Field(
        None, ge=0, le=1, description="MeSH score of the contexts: depends on formula and corpus"
    )
    min_mesh_margin: float | None = Field(
        None, description="Lead over the other question: depends on formula and corpus"
    )
    max_source_rank: int | None = Field(
        None, ge=1, description="Rank at which a question must find its source: depends on the index"
    )
    min_evaluator_margin: float | None = Field(
        None, description="Lead over the other question: depends on the evaluator"
    )

    @field_validator("languages")
    @classmethod
    def _can_be_told(cls, languages: list[str] | None) -> list[str] | None:
        unknown = sorted(set(languages or []) - set(signals.LANGUAGES))
        if unknown:
            raise ValueError(
                f"{', '.join(unknown)}: no language that is told from others; choose of "
                f"{', '.join(signals.LANGUAGES)}"
            )
        return languages


def evaluate(  # noqa: PLR0917 (one table for each upstream of the asset)
    generated: pl.DataFrame,
    contexts: pl.DataFrame,
    preferences: pl.DataFrame,
    entailments: pl.DataFrame,
    specificity: signals.Specificity,
    rules: QualityRules,
) -> pl.DataFrame:
    """Every row of a `GeneratedQA` table with its signals and verdict, as an `EvaluatedQA` table by PMID.

    `contexts` (`DistilledContexts`) gives the MeSH score, its lead, and the rank at which the question found
    its source, `preferences` (`QuestionPreference`) the evaluator's lead where it is the same question, and
    `entailments` what a model judges, without rows where none does. No row is dropped; each keeps every
    reason against it. Memory grows with the text of the branch.
    """
    question, columns = ["pmid", "question"], EvaluatedQA.create_empty().columns
    preferred = preferences.select("pmid", "evaluator_margin", question="chosen_question")
    rows = (
        generated.sort("pmid")
        .join(
            contexts.select(*question, "mesh_score", "mesh_margin", "source_rank"),
            on=question,
            how="left",
            validate="1:1",
            maintain_order="left",
        )
        .join(preferred, on=question, how="left", validate="1:1", maintain_order="left")
        .join(entailments, on="pmid", how="left", validate="1:1", maintain_order="left")
    )
    starts = range(0, max(1, rows.height), _ROWS)
    measured = [with_signals(rows.slice(start, _ROWS), specificity) for start in starts]
    return (
        pl.concat(measured)
        .with_columns(reasons=reasons_against(rules))
        .with_columns(kept=pl.col("reasons").list.len() == 0)
        .select(columns)
    )


def with_signals(rows: pl.DataFrame, specificity: signals.Specificity) -> pl.DataFrame:
    """The rows with the signals that their texts give (`mkailin_assets.corpus.signals`)."""
    question, answer = pl.col("question"), pl.col("long_answer")
    texts = rows.select(
        "question",
        "long_answer",
        "title",
        both=pl.concat_str(question, answer, separator=" ", ignore_nulls=True),
        asked=signals.words(question),
        answered=signals.words(answer),
        # The source last: its conclusion follows on its other sentences.
        given=signals.words(signals.joined(pl.concat_list(_shown(), "source_context"))),
        concluded=signals.words(pl.col("source_conclusion")),
    )
    both, given = texts["both"], texts["given"]
    asked = texts["question"].drop_nulls().unique()
    specificities = dict(zip(asked, specificity(asked.to_list()), strict=True))
    measured = texts.select(
        question_words=signals.word_count(question),
        answer_words=signals.word_count(answer),
        answer_support=signals.support(pl.col("answered"), pl.col("given")),
        question_support=signals.support(pl.col("asked"), pl.col("given")),
        title_overlap=signals.title_overlap(question, pl.col("title")),
        copied_share=signals.copied_shares(texts["answered"], given.list.concat(texts["concluded"])),
        read_decision=signals.read_decisions(texts["question"], texts["long_answer"]),
        specificity=pl.Series([specificities.get(text) for text in texts["question"]], dtype=pl.Float64),
        language=signals.languages(both),
        reading_grade=signals.reading_grade(answer),
        toxicity=signals.toxicities(both),
        personal_data=signals.personal_data(both),
        odd_characters=signals.odd_characters(pl.col("both")),
    )
    return pl.concat([rows, measured], how="horizontal")


def reasons_against(rules: QualityRules) -> pl.Expr:
    """Every reason to keep a row with signals out of training, in words; an empty list: none.

    What could not be measured speaks against no row.
    """
    question, answer, no_failure = pl.col("question"), pl.col("long_answer"), pl.col("failure").is_null()
    opening = answer.str.extract(signals.OPENING).str.to_lowercase()
    against = {
        "there is no question": no_failure & question.is_null(),
        "there is no answer": no_failure & answer.is_null(),
        "question without a question mark": ~question.str.strip_chars().str.ends_with("?"),
        "answer opens with the opposite of its decision": _opposite(opening),
    }
    for rule, (breaks, reason) in _BROKEN.items():
        limit = getattr(rules, rule)
        if limit is not None and limit is not False:
            told = ", ".join(limit) if isinstance(limit, list) else limit
            against[reason.format(told)] = breaks(limit)
    return pl.concat_list(
        pl.col("failure"), *(pl.when(holds).then(pl.lit(reason)) for reason, holds in against.items())
    ).list.drop_nulls()


def _short(words: str, text: str, least: int) -> pl.Expr:
    return pl.col(text).is_not_null() & (pl.col(words) < least)


def _repeats_title(most: float) -> pl.Expr:
    repeats = (pl.col("title_overlap") > most) & ~pl.col("title").str.ends_with("?")
    return repeats & ~signals.asks(pl.col("question"))


def _finds_no_source(last: int) -> pl.Expr:
    return pl.col("question").is_not_null() & (
        pl.col("source_rank").is_null() | (pl.col("source_rank") > last)
    )


def _opposite(read: pl.Expr) -> pl.Expr:
    """Whether one says yes and the other no."""
    decision = pl.col("decision")
    return ((decision == "yes") & (read == "no")) | ((decision == "no") & (read == "yes"))


def _shown() -> pl.Expr:
    """Titles and texts of the contexts, as they are shown to a reader."""
    context = pl.element().struct
    return pl.col("contexts").list.eval(
        pl.concat_str(context.field("title"), context.field("text"), separator=" ", ignore_nulls=True)
    )


# Of each rule that is on: what breaks it, given its limit, and what that is called.
_BROKEN: Mapping[str, tuple[Callable[[Any], pl.Expr], str]] = {
    "min_question_words": (
        lambda least: _short("question_words", "question", least),
        "question of fewer than {} words",
    ),
    "max_question_words": (lambda most: pl.col("question_words") > most, "question of more than {} words"),
    "max_title_overlap": (_repeats_title, "question repeats its title without asking"),
    "min_question_support": (
        lambda least: pl.col("question_support") < least,
        "question has less than {:.0%} of its words from its contexts",
    ),
    "min_specificity": (
        lambda least: pl.col("specificity") < least,
        "headings that the question names tell less than {}",
    ),
    "min_answer_words": (
        lambda least: _short("answer_words", "long_answer", least),
        "answer of fewer than {} words",
    ),
    "max_answer_words": (lambda most: pl.col("answer_words") > most, "answer of more than {} words"),
    "min_answer_support": (
        lambda least: pl.col("answer_support") < least,
        "answer has less than {:.0%} of its words from its contexts",
    ),
    "max_copied_share": (
        lambda most: pl.col("copied_share") > most,
        "answer of which more than {:.0%} is copied",
    ),
    "max_reading_grade": (lambda most: pl.col("reading_grade") > most, "answer above school year {}"),
    "drop_opposite_decisions": (
        lambda _: _opposite(pl.col("read_decision")),
        "answer reads like the opposite of its decision",
    ),
    "drop_contradicted": (
        lambda _: pl.col("entailment") == "contradicted",
        "its contexts contradict the answer",
    ),
    "languages": (lambda wanted: ~pl.col("language").is_in(wanted), "in another language than {}"),
    "max_toxicity": (lambda most: pl.col("toxicity") > most, "offensive wording"),
    "drop_personal_data": (lambda _: pl.col("personal_data").list.len() > 0, "holds personal data"),
    "max_odd_characters": (
        lambda most: pl.col("odd_characters") > most,
        "more than {} odd characters (controls, private use, pictures)",
    ),
    "min_mesh_score": (lambda least: pl.col("mesh_score") < least, "MeSH score of its contexts below {}"),
    "min_mesh_margin": (
        lambda least: pl.col("mesh_margin") < least,
        "MeSH lead over the other question below {}",
    ),
    "max_source_rank": (_finds_no_source, "question does not find its source among the first {}"),
    "min_evaluator_margin": (
        lambda least: pl.col("evaluator_margin") < least,
        "evaluator's lead over the other question below {}",
    ),
}
