"""What is good enough to train on: signals of each question-answer pair, and the verdict with its reasons."""

import re

import polars as pl
from pydantic import BaseModel, Field

from mkailin_assets.corpus.tables import EvaluatedQA

# English words that carry grammar and no content: they are in any text and support nothing.
_FUNCTION_WORDS = re.findall(
    r"\w+",
    """
    a about after all also although an and any are as at be because been before being between both but by
    can could did do does during each either for from further had has have he her his how if in into is it
    its may might more most must no nor not of on only or other our out over she should so some such than
    that the their them then there these they this those through thus to under until up upon very was we
    were what when where whether which while who whose why will with within without would
    """,
)

WORD = r"[\p{L}\p{N}]+(?:[-'\x{2019}.][\p{L}\p{N}]+)*"
# A question opens, itself or after an introduction set off by punctuation, with one of these.
ASKS = (
    r"(?i)(?:^|[.,:;\x{2013}\x{2014}-]\s*)(?:(?:and|or|to|in|at|for|by|of|on|from|with)\s+)?"
    r"(?:do|does|did|is|are|was|were|can|could|should|would|will|may|might|must|has|have|had"
    r"|what|which|who|whom|whose|when|where|why|how)\b"
)


class QualityRules(BaseModel):
    """What a pair must satisfy to enter the training corpus."""

    min_question_words: int = Field(4, ge=1, description="Shorter questions say too little")
    max_question_words: int = Field(60, ge=1, description="Longer questions are no questions")
    min_answer_words: int = Field(5, ge=1, description="Shorter answers explain nothing")
    # Of PubMedQA's 500 expert-labelled development items 98% of the conclusions reach 0.2 in their own
    # abstract, 1% in another item's.
    min_answer_support: float = Field(
        0.2, ge=0, le=1, description="Share of the answer's content words that its contexts must hold"
    )
    max_title_overlap: float = Field(
        0.9, ge=0, le=1, description="A question nearer to a title that asks nothing must itself ask"
    )


def evaluate(generated: pl.DataFrame, contexts: pl.DataFrame, rules: QualityRules) -> pl.DataFrame:
    """Every row of a `GeneratedQA` table with its signals and verdict, as an `EvaluatedQA` table.

    `contexts` (`DistilledContexts`) gives the MeSH score, its lead, and the rank at which the question found
    its source. No row is dropped; each keeps every reason against it. Memory grows with the text of the
    branch.
    """
    found = contexts.select("pmid", "question", "mesh_score", "mesh_margin", "source_rank")
    question, answer, title = pl.col("question"), pl.col("long_answer"), pl.col("title")
    return (
        generated.join(found, on=["pmid", "question"], how="left", validate="1:1")
        .with_columns(
            question_words=word_count(question),
            answer_words=word_count(answer),
            answer_support=answer_support(answer, _given_text()),
            title_overlap=title_overlap(question, title),
        )
        .with_columns(reasons=reasons_against(rules))
        .with_columns(kept=pl.col("reasons").list.len() == 0)
        .select(EvaluatedQA.create_empty().columns)
        .sort("pmid")
    )


def word_count(text: pl.Expr) -> pl.Expr:
    """Number of words; 0 where there is no text.

    Length is the plainest filter of generated text (Raffel et al. 2020 drop short pages from C4).
    """
    return text.str.count_matches(WORD).fill_null(0).cast(pl.Int32)


def answer_support(answer: pl.Expr, given: pl.Expr) -> pl.Expr:
    """Share of the answer's distinct content words that stand in the given text, 0 to 1.

    Words without content (articles, auxiliaries) do not count; null without answer or content words. It is
    the coverage of Grusky et al. 2018 (Newsroom) over distinct words: low where a model answers from
    elsewhere than its contexts.
    """
    content = _content_words(answer)
    shared = content.list.set_intersection(_content_words(given.fill_null("")))
    return pl.when(content.list.len() > 0).then(shared.list.len() / content.list.len())


def title_overlap(question: pl.Expr, title: pl.Expr) -> pl.Expr:
    """Jaccard similarity (1912) of the distinct words of question and title, 0 to 1; null if either lacks.

    High where a question is its title: right for a title that asks, and for a statement turned round.
    """
    asked, named = _distinct_words(question), _distinct_words(title)
    union = asked.list.set_union(named).list.len()
    return pl.when(union > 0).then(asked.list.set_intersection(named).list.len() / union)


def asks(text: pl.Expr) -> pl.Expr:
    """Whether the text is put as an English question: an auxiliary or question word opens a clause.

    Statement titles turned into questions (PubMedQA, Jin et al. 2019) move the auxiliary to the front.
    """
    return text.str.contains(ASKS)


def reasons_against(rules: QualityRules) -> pl.Expr:
    """Every reason to keep a row with signals out of training, in words; an empty list: none."""
    question, title = pl.col("question"), pl.col("title")
    no_failure = pl.col("failure").is_null()
    has_question, has_answer = question.is_not_null(), pl.col("long_answer").is_not_null()
    asked_words, answer_words = pl.col("question_words"), pl.col("answer_words")
    repeats_title = (pl.col("title_overlap") > rules.max_title_overlap) & ~title.str.ends_with("?")
    least, support = rules.min_answer_words, rules.min_answer_support
    against = {
        "there is no question": no_failure & ~has_question,
        "there is no answer": no_failure & ~has_answer,
        f"question of fewer than {rules.min_question_words} words": has_question
        & (asked_words < rules.min_question_words),
        f"question of more than {rules.max_question_words} words": asked_words > rules.max_question_words,
        "question without a question mark": ~question.str.strip_chars().str.ends_with("?"),
        "question repeats its title without asking": repeats_title & ~asks(question),
        f"answer of fewer than {least} words": has_answer & (answer_words < least),
        f"answer has less than {support:.0%} of its words from its contexts": pl.col("answer_support")
        < support,
    }
    return pl.concat_list(
        pl.col("failure"), *(pl.when(holds).then(pl.lit(reason)) for reason, holds in against.items())
    ).list.drop_nulls()


def _given_text() -> pl.Expr:
    retrieved = (
        pl.col("contexts").list.eval(pl.element().struct.field("text")).list.join(" ", ignore_nulls=True)
    )
    return pl.concat_str(pl.col("source_context"), retrieved, separator=" ", ignore_nulls=True)


def _distinct_words(text: pl.Expr) -> pl.Expr:
    return text.str.to_lowercase().str.extract_all(WORD).list.unique()


def _content_words(text: pl.Expr) -> pl.Expr:
    return _distinct_words(text).list.eval(pl.element().filter(~pl.element().is_in(_FUNCTION_WORDS)))
