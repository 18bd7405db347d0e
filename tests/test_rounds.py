"""The loop: preferences of one round make the pairs of the next, and the best that beats its start stays."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from asking import asking
from tiny_model import tiny_documents, tiny_exemplars

from mkailin_assets.adapters import AdapterRecord, write_record
from mkailin_assets.checkpoints import name_of
from mkailin_assets.preferences.optimization import PreferenceOptimization
from mkailin_assets.preferences.rounds import (
    PAIR_COLUMNS,
    Loop,
    Round,
    RoundRules,
    described,
    first_pairs,
    next_pairs,
)
from mkailin_assets.preferences.tables import PreferredGenerator, QuestionPreference
from mkailin_assets.preferences.trial import CITATION_COLUMNS, Trial
from mkailin_assets.pubmed.tables import BranchCitation
from mkailin_assets.questions.finetuning import GeneratorTuning
from mkailin_assets.questions.generators import tuned
from mkailin_assets.retrieval.pairs import is_held_out
from mkailin_assets.trainer import LossCurve, TrainingCourse
from mkailin_resources.embeddings.corpus import CorpusEncoder
from mkailin_resources.index import CITATION, ContextStore
from mkailin_resources.models.transformers_model import TransformersModel
from mkailin_resources.storage import Storage
from mkailin_resources.trainees import Trainees

TEXT = [{"label": None, "category": None, "text": "An abstract."}]
CITATIONS = pl.DataFrame(
    {"pmid": [1, 2, 3], "title": ["One", "Two", "Three"], "abstract": [TEXT] * 3},
    schema_overrides={
        "abstract": pl.List(pl.Struct({"label": pl.String, "category": pl.String, "text": pl.String}))
    },
)


def preferences(*rows: dict[str, Any]) -> pl.DataFrame:
    schema = QuestionPreference.create_empty().schema
    empty = dict.fromkeys(schema)
    return pl.DataFrame([empty | row for row in rows], schema=schema)


def kept(pmid: int, **changes: Any) -> dict[str, Any]:
    asked = {"chosen_question": f"Good {pmid}?", "rejected_question": f"Bad {pmid}?"}
    return asked | {"pmid": pmid, "kept": True, "chosen_score": 0.5} | changes


def written(*rows: tuple[int, str | None, float]) -> pl.DataFrame:
    schema = {"pmid": pl.Int64, "question": pl.String, "score": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


PAIRS = first_pairs(preferences(kept(1), kept(2), kept(3, kept=False)), CITATIONS)


def test_the_first_round_trains_on_the_kept_preferences_with_their_texts() -> None:
    assert PAIRS.columns == list(PAIR_COLUMNS)
    assert PAIRS.select("pmid", "title", "chosen", "rejected").rows() == [
        (1, "One", "Good 1?", "Bad 1?"),
        (2, "Two", "Good 2?", "Bad 2?"),
    ]
    assert PAIRS["split"].to_list() == ["held_out" if is_held_out(pmid) else "train" for pmid in (1, 2)]


def test_the_next_round_prefers_what_fits_better_of_the_new_question_and_the_preferred_one() -> None:
    made = next_pairs(PAIRS, written((1, "New 1?", 0.75), (2, "New 2?", 0.25)), margin=0.01)
    assert made.select("pmid", "chosen", "rejected", "chosen_score").rows() == [
        (1, "New 1?", "Good 1?", 0.75),
        (2, "Good 2?", "New 2?", 0.5),
    ]


@pytest.mark.parametrize(
    "new", [(1, None, 0.0), (1, "good 1?", 0.75), (1, "New 1?", 0.505)], ids=["none", "the same", "a tie"]
)
def test_without_a_clear_preference_there_is_no_pair(new: tuple[int, str | None, float]) -> None:
    assert next_pairs(PAIRS, written(new), margin=0.01).is_empty()


def checkpoint(folder: Path, fingerprint: str) -> str:
    """A folder that holds a record alone; its path."""
    folder.mkdir()
    record = AdapterRecord(
        name="domain",
        fingerprint=fingerprint,
        recipe="1",
        base="",
        revision="",
        prompt="p",
        max_characters=400,
        parameters=10,
        trained_parameters=1,
        course=TrainingCourse(
            steps=1, resumed_at=None, seconds=1, curve=LossCurve(train=[(1, 0.5)], validation=[])
        ),
        packages={},
        sha256={},
    )
    write_record(record, folder)
    return str(folder)


@pytest.mark.parametrize(
    ("first", "second", "current"),
    [(0.6, 0.5, 1), (0.6, 0.7, 2), (0.3, 0.4, 0), (0.4, 0.4, 0)],
    ids=["the first round is best", "the second is", "none beats the start", "as good as the start"],
)
def test_the_best_round_that_beats_its_start_is_current(
    tmp_path: Path, first: float, second: float, current: int
) -> None:
    tried = pl.DataFrame(
        [
            {"contestant": str(number), "pmid": pmid, "score": score + 0.01 * (pmid % 3)}
            for number, score in enumerate((0.4, first, second))
            for pmid in range(1, 31)
        ]
    )
    storage = Storage(root=str(tmp_path))
    rounds = [
        Round(number, checkpoint(tmp_path / str(number), f"f{number}"), f"round {number}", None)
        for number in range(3)
    ]
    made = PreferredGenerator.validate(described(rounds, tried, storage))
    assert made.filter("is_current")["round"].to_list() == [current]
    assert made["score"].to_list() == pytest.approx([0.41, first + 0.01, second + 0.01])
    assert made["lead"].to_list() == [None, pytest.approx(first - 0.4), pytest.approx(second - 0.4)]
    assert described(rounds, None, storage).filter("is_current")["round"].to_list() == [0]


class SharedHeadings:
    """A similarity: 1 where the first headings are the same, else 0."""

    def best_match_averages(
        self, sources: Sequence[Sequence[str]], contexts: Sequence[Sequence[str]]
    ) -> np.ndarray:
        return np.array([float(one[:1] == other[:1]) for one, other in zip(sources, contexts, strict=True)])


def test_the_loop_turns_twice_trains_each_round_once_and_compares_them_in_one_table(tmp_path: Path) -> None:
    documents = tiny_documents(48)
    texts = [f"{row['title']}\n{row['abstract'][1]['text']}" for row in documents]  # type: ignore[index]
    about = {"content_hash": "h", "pubmed_file": "f", "branch": "C01", "year": 2020, "languages": ["eng"]}
    held = pl.DataFrame(
        [
            about
            | {"pmid": row["pmid"], "title": row["title"], "text": text, "heading_uis": [str(place % 8)]}
            for place, (row, text) in enumerate(zip(documents, texts, strict=True))
        ],
        schema=CITATION,
    )
    storage = Storage(root=str(tmp_path / "root"))
    store = ContextStore(storage=storage, retriever="lexical")
    searcher = store.over(held, CorpusEncoder.learn(texts), tmp_path / "index")
    citations = pl.DataFrame(
        [
            {"pmid": row["pmid"], "branch": "C01", "pubmed_file": "f", "content_hash": "h"}
            | {"title": row["title"], "abstract": row["abstract"]}
            | {"headings": [{"ui": str(place % 8), "name": "n", "major": False, "qualifiers": []}]}
            for place, row in enumerate(documents)
        ],
        schema={name: BranchCitation.create_empty().schema[name] for name in CITATION_COLUMNS},
    )
    exemplars = tiny_exemplars()
    trainees = Trainees(
        is_on=True,
        bases={"domain": None, "general": None, "evaluator": None},
        evaluator="cold_start",
        engine=lambda name: TransformersModel(name, batch_size=32),
    )
    quick: dict[str, Any] = {"max_length": 320, "max_steps": 3, "batch_size": 8, "accumulation": 1}
    # Long enough that it ends its questions: one that does not writes on to the limit.
    tuning = GeneratorTuning(
        vocabulary=400, max_characters=300, learning_rate=1e-2, **(quick | {"max_steps": 40, "epochs": 40})
    )
    published, record = tuned("domain", exemplars, tuning, trainees, storage, lambda line: None)
    pairs = first_pairs(
        preferences(
            *(
                kept(row["pmid"], chosen_question=row["question"], rejected_question="Is it cheap?")
                for row in documents
            )
        ),
        citations,
    )
    said: list[str] = []
    loop = Loop(
        settings=PreferenceOptimization(**quick),
        rules=RoundRules(rounds=2, citations_per_round=30),
        margin=-1,
        trial=Trial(citations.head(4), searcher, SharedHeadings(), 2),
        trainees=trainees,
        storage=storage,
        ask=asking(tmp_path),
        log=said.append,
    )
    rounds = loop.turn(published.uri, name_of(record), citations, pairs)
    assert [one.number for one in rounds] == [0, 1, 2]
    assert rounds[2].record is not None
    assert rounds[1].record is not None
    assert rounds[2].record.start == rounds[1].record.fingerprint
    assert len({one.uri for one in rounds}) == 3
    table = PreferredGenerator.validate(loop.table(rounds))
    assert table["score"].null_count() == 0
    assert table["documents"].to_list() == [4, 4, 4]

    said.clear()
    strict = replace(loop, margin=2)
    ended = strict.turn(published.uri, name_of(record), citations, pairs)
    assert [one.number for one in ended] == [0, 1]
    assert said[-1].startswith("the loop ends with round 1: preference optimization needs at least 20 pairs")

    said.clear()
    again = loop.turn(published.uri, name_of(record), citations, pairs)
    assert [one.uri for one in again] == [one.uri for one in rounds]
    assert not any(line.startswith("step") for line in said), "nothing is trained twice"
