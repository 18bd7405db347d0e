"""A training corpus of invented examples, small enough to train on in seconds."""

import polars as pl

from mkailin_assets.corpus.chat import CONTEXT, DECIDE, QUESTION
from mkailin_assets.corpus.tables import TrainingExample
from mkailin_assets.corpus.texts import example_hash

SUBSTANCES = ("amarin", "belosol", "corvane", "delphine", "esterol", "folanib")
CONDITIONS = ("pain", "fever", "cough", "fatigue", "nausea")


def training_examples(
    train: int = 24, validation: int = 6, test: int = 2, decision: str = "no"
) -> pl.DataFrame:
    """A TrainingExample table with so many rows a split, each answered by the same decision."""
    splits = ["train"] * train + ["validation"] * validation + ["test"] * test
    rows = []
    for index, split in enumerate(splits):
        substance, condition = SUBSTANCES[index % len(SUBSTANCES)], CONDITIONS[index % len(CONDITIONS)]
        rows.append(
            training_example(
                90000001 + index,
                split,
                question=f"Does {substance} relieve {condition}?",
                context=f"We gave {substance} or placebo to {20 + index} patients with {condition}.",
                decision=decision,
                long_answer=f"{substance.title()} was no better than placebo against {condition}.",
            )
        )
    examples = pl.DataFrame(rows, schema=TrainingExample.create_empty().schema)
    return examples.with_columns(example_hash(examples))


def training_example(
    pmid: int, split: str, *, question: str, context: str, decision: str, long_answer: str
) -> dict[str, object]:
    """One row, its messages worded as `training_corpus` words them."""
    asked = CONTEXT.format(context) + QUESTION.format(question) + DECIDE
    return {
        "example_id": f"example-{pmid}",
        "pmid": pmid,
        "pubmed_file": "pubmed26n0001",
        "branch": "C23",
        "split": split,
        "question": question,
        "context": context,
        "context_pmids": [],
        "made_of": [{"use": "source", "pmid": pmid, "content_hash": f"hash {pmid}"}],
        "long_answer": long_answer,
        "decision": decision,
        "pretraining_text": f"{context}\n\n{question}",
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": f"{decision}. {long_answer}"},
        ],
        "generator": "a test",
        "answerer": "a test",
        "prompt_version": "1",
        "question_words": len(question.split()),
        "answer_words": len(long_answer.split()),
        "personal_data": [],
        "odd_characters": 0,
    }
