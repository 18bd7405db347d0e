"""Rows of the corpus stage, right unless a test changes them."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from mkailin_assets.corpus.assembly import CorpusRules, assemble, examples
from mkailin_assets.corpus.entailment import ENTAILMENT
from mkailin_assets.corpus.quality import QualityRules, evaluate
from mkailin_assets.corpus.tables import (
    CorpusExclusion,
    DistilledContexts,
    EvaluatedQA,
    GeneratedQA,
    TrainingExample,
)
from mkailin_assets.preferences.tables import QuestionPreference
from mkailin_assets.pubmed.tables import CurrentCitation

TOPICS = (
    "zinc tablets shorten the common cold",
    "walking after meals lowers glucose",
    "night shifts raise blood pressure",
    "gentle music calms agitated patients",
    "early mobilisation prevents pneumonia",
    "warm blankets reduce shivering",
    "honey soothes cough in toddlers",
    "vaccination halves hospital stays",
    "screening finds silent hypertension",
    "green tea protects enamel",
)

# Rows of a test ask what it is about, and their contexts need not say the same.
ANSWERABLE_OR_NOT = QualityRules(min_question_support=None)


def context(pmid: int, rank: int = 1, title: str = "Another trial.", text: str = "It found little.") -> Any:
    """A retrieved context as a pair keeps it."""
    return {"rank": rank, "pmid": pmid, "content_hash": f"hash {pmid}", "title": title, "text": text}


def qa(pmid: int, **changes: Any) -> dict[str, Any]:
    """A generated pair of a citation, answered from its own abstract."""
    # A long number apart, two questions on one topic are no near-duplicates.
    topic = f"{TOPICS[pmid % len(TOPICS)]} in trial {pmid * 7919}"
    row = {
        "pmid": pmid,
        "branch": "C04",
        "pubmed_file": "pubmed26n0001",
        "content_hash": f"hash {pmid}",
        "title": f"A trial of {pmid}",
        "question": f"Is it true that {topic}?",
        "question_role": "domain",
        "generator": "asker",
        "question_prompt_version": "1",
        "chosen_by": "cold start",
        "source_context": f"We asked whether {topic} in a trial.",
        "source_conclusion": f"The trial shows that {topic}.",
        "contexts": [context(5000 + pmid)],
        "long_answer": f"The trial shows that {topic}.",
        "decision": "yes",
        "evidence": [f"The trial shows that {topic}."],
        "answerer": "answerer",
        "prompt_version": "1",
        "fingerprint": "f",
        "failure": None,
    }
    return row | changes


def generated(*rows: dict[str, Any]) -> pl.DataFrame:
    return GeneratedQA.validate(pl.DataFrame(list(rows), schema=GeneratedQA.create_empty().schema))


def evaluated(*rows: dict[str, Any], rules: QualityRules | None = None, **known: Any) -> pl.DataFrame:
    """The rows as evaluation leaves them; `known` is what their texts do not tell, nothing by default."""
    nothing = {
        "contexts": DistilledContexts.create_empty(),
        "preferences": QuestionPreference.create_empty(),
        "entailments": pl.DataFrame(schema=ENTAILMENT),
        "specificity": lambda questions: [None] * len(questions),
    }
    table = evaluate(generated(*rows), rules=rules or ANSWERABLE_OR_NOT, **(nothing | known))
    return EvaluatedQA.validate(table)


def corpus_of(
    tables: Mapping[str, pl.LazyFrame], citations: pl.DataFrame, benchmark: pl.DataFrame, rules: CorpusRules
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The corpus of evaluated pairs by branch, and what stayed out of it."""
    assembly = assemble(tables, citations, benchmark, rules)
    corpus = pl.concat([TrainingExample.create_empty(), *examples(tables, assembly.kept, rules)])
    assert sorted(corpus["example_id"]) == sorted(assembly.kept["example_id"])
    return TrainingExample.validate(corpus.sort("pmid")), CorpusExclusion.validate(assembly.exclusions)


def current(*rows: dict[str, Any], **changes: Any) -> pl.DataFrame:
    """The state of PubMed that the rows were made from, contexts too; `changes` hold for all sources."""
    sources = {row["pmid"]: row | changes for row in rows}
    contexts = {context["pmid"]: context for row in rows for context in row["contexts"]}
    states = [
        {
            "pmid": pmid,
            "state": row.get("state", "current"),
            "pubmed_file": row.get("pubmed_file", "pubmed26n0001"),
            "position": position,
            "version": 1,
            "home_branch": row.get("home_branch", row.get("branch")),
            "waiting": None,
            "has_abstract": True,
            "content_hash": row["content_hash"],
        }
        for position, (pmid, row) in enumerate((contexts | sources).items())
    ]
    return CurrentCitation.validate(pl.DataFrame(states, schema=CurrentCitation.create_empty().schema))


def became(citations: pl.DataFrame, cited: int, **changes: Any) -> pl.DataFrame:
    """`CurrentCitation` after PubMed changed one citation."""
    new = {name: pl.lit(value, citations.schema[name]) for name, value in changes.items()}
    return citations.with_columns(
        **{name: pl.when(pl.col("pmid") == cited).then(value).otherwise(name) for name, value in new.items()}
    )
