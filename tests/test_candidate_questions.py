"""Candidate questions: each citation has a question, or a reason, from each generator; the checks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from asking import Writer, says, unpaid

from mkailin_assets.partitions import mesh_branches
from mkailin_assets.pubmed.tables import BranchCitation
from mkailin_assets.questions import checks
from mkailin_assets.questions.assets import candidate_questions as candidate_questions_asset
from mkailin_assets.questions.candidates import NO_ABSTRACT, candidate_questions
from mkailin_assets.questions.generators import NOT_TRAINED, checkpoint_row
from mkailin_assets.questions.tables import CandidateContexts, CandidateQuestion
from mkailin_resources.generation import Generation
from mkailin_resources.models.extractive import ConclusionQuestioner, StatementTitleQuestioner
from mkailin_resources.models.interface import GenerationRequest, GenerationResult, GeneratorFault
from mkailin_resources.models.transformers_model import TransformersModel
from mkailin_resources.storage import ParquetTables, Storage
from mkailin_resources.trainees import TRAINEES, Trainee, Trainees

AGENTS = {"domain": StatementTitleQuestioner(), "general": ConclusionQuestioner()}


def citation(pmid: int, **changes: Any) -> dict[str, Any]:
    row = {
        "pmid": pmid,
        "branch": "C23",
        "pubmed_file": "pubmed26n0001",
        "version": 1,
        "title": f"Compound {pmid} reduces fever in adults.",
        "abstract": [
            {
                "label": None,
                "category": None,
                "text": "We gave tablets. Fever fell. In conclusion, tablets reduce fever in adults.",
            }
        ],
        "headings": [],
        "publication_types": [],
        "year": 2026,
        "journal": "Annals of Examples",
        "content_hash": f"hash {pmid}",
    }
    return row | changes


def citations(*rows: dict[str, Any]) -> pl.DataFrame:
    return BranchCitation.validate(pl.DataFrame(list(rows), schema=BranchCitation.create_empty().schema))


@dataclass
class Scripted(Writer):
    """A generator that gives, for any requests, exactly these results."""

    results: tuple[GenerationResult, ...] = ()

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        assert list(requests)
        yield from self.results


def asked(*results: GenerationResult, pmids: tuple[int, ...] = (1,)) -> pl.DataFrame:
    rows = citations(*(citation(pmid) for pmid in pmids))
    return CandidateQuestion.validate(
        candidate_questions(rows, {"domain": Scripted(says(""), results=results)}, "C23", unpaid)
    )


def test_each_citation_has_a_row_of_each_generator() -> None:
    made = candidate_questions(citations(citation(1), citation(2)), AGENTS, "C23", unpaid)
    assert CandidateQuestion.validate(made).select("pmid", "role").rows() == [
        (1, "domain"),
        (1, "general"),
        (2, "domain"),
        (2, "general"),
    ]
    first = made.row(0, named=True)
    assert first["question"] == "Does compound 1 reduce fever in adults?"
    assert (first["generator"], first["content_hash"]) == ("extractive-statement-title", "hash 1")


def test_a_citation_without_abstract_is_a_failure_and_not_asked() -> None:
    made = candidate_questions(citations(citation(1, abstract=[], title=None)), AGENTS, "C23", unpaid)
    assert made["failure"].to_list() == [NO_ABSTRACT, NO_ABSTRACT]


def test_results_in_any_order_find_their_citation() -> None:
    made = asked(
        GenerationResult("2", text="Is this of two?"),
        GenerationResult("1", text="Is this of one?"),
        pmids=(1, 2),
    )
    assert made["question"].to_list() == ["Is this of one?", "Is this of two?"]


@pytest.mark.parametrize(
    "results",
    [
        [],
        [GenerationResult("1", text="Is it?"), GenerationResult("1", text="Is it?")],
        [GenerationResult("9", text="Is it?")],
        [GenerationResult("1")],
    ],
    ids=["missing", "twice", "not asked", "neither text nor failure"],
)
def test_a_generator_that_breaks_its_contract_is_an_error(results: list[GenerationResult]) -> None:
    with pytest.raises(GeneratorFault, match="scripted"):
        asked(*results)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("   ", "empty"),
        ("Compound 1 reduces fever.", "question mark"),
        ("Is " + "very " * 60 + "much?", "longer than 60 words"),
    ],
)
def test_what_is_no_question_is_a_failure_whoever_wrote_it(text: str, reason: str) -> None:
    row = asked(GenerationResult("1", text=text)).row(0, named=True)
    assert row["question"] is None
    assert reason in row["failure"]


def test_questions_are_kept_on_one_line_in_composed_characters() -> None:
    made = asked(GenerationResult("1", text="  Is Sjo\u0308gren\n  disease rare? "))
    assert made["question"].to_list() == ["Is Sj\u00f6gren disease rare?"]


def test_a_branch_without_citations_gives_an_empty_table() -> None:
    made = candidate_questions(citations(), AGENTS, "C23", unpaid)
    assert CandidateQuestion.validate(made).is_empty()


def test_the_fingerprint_follows_the_text_and_not_the_pmid() -> None:
    same = citation(2, title=citation(1)["title"])
    made = candidate_questions(citations(citation(1), same, citation(3)), AGENTS, "C23", unpaid)
    domain = made.filter(pl.col("role") == "domain")["fingerprint"].to_list()
    assert domain[0] == domain[1] != domain[2]


def test_the_asset_reports_questions_and_reasons(tmp_path: Path) -> None:
    storage = Storage(root=str(tmp_path))
    storage.write_table(citations(citation(1), citation(2, abstract=[])), "branch_citations", "C23")
    roles: tuple[Trainee, Trainee] = ("domain", "general")
    for role in roles:
        storage.write_table(checkpoint_row(role, AGENTS[role], NOT_TRAINED), f"{role}_generator")
    untuned = Trainees(False, dict.fromkeys(TRAINEES), "cold_start", engine=TransformersModel)
    done = dg.materialize(
        [
            candidate_questions_asset,
            dg.AssetSpec("branch_citations", partitions_def=mesh_branches),
            *(dg.AssetSpec(f"{role}_generator") for role in roles),
        ],
        selection=[candidate_questions_asset],
        partition_key="C23",
        resources={
            "io_manager": ParquetTables(storage=storage),
            "domain_model": AGENTS["domain"],
            "general_model": AGENTS["general"],
            "generation": Generation(storage=storage),
            "trainees": untuned,
            "storage": storage,
        },
    )
    [output] = done.asset_materializations_for_node("candidate_questions")
    assert output.metadata["citations"].value == 2
    assert output.metadata["questions_by_role"].value == {"domain": 1, "general": 1}
    assert output.metadata["failures"].value == {NO_ABSTRACT: 2}
    assert (output.metadata["requests"].value, output.metadata["generated"].value) == (2, 2)
    assert done.output_for_node("candidate_questions").height == 4


QUESTIONS = candidate_questions(citations(citation(1), citation(2), citation(3)), AGENTS, "C23", unpaid)


def test_a_citation_that_was_not_asked_fails_the_check() -> None:
    rows = citations(citation(1), citation(2), citation(3))
    check = checks.each_generator_was_asked_about_each_citation
    assert check(QUESTIONS, rows).passed
    assert not check(QUESTIONS.slice(1), rows).passed
    unexplained = QUESTIONS.with_columns(question=pl.lit(None, pl.String), failure=pl.lit(None, pl.String))
    assert not check(unexplained, rows).passed


def test_many_failures_are_warned_of() -> None:
    failed = QUESTIONS.with_columns(question=pl.lit(None, pl.String), failure=pl.lit("no reason"))
    result = checks.few_questions_failed(failed)
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.WARN
    assert checks.few_questions_failed(QUESTIONS.filter(pl.col("role") == "domain")).passed


def test_a_generator_that_repeats_itself_fails_the_check() -> None:
    domain = QUESTIONS.filter(pl.col("role") == "domain")
    assert checks.questions_belong_to_one_citation(domain).passed
    repeated = domain.with_columns(question=pl.lit("Is this the same question?"))
    assert not checks.questions_belong_to_one_citation(repeated).passed


def contexts(*found: tuple[int, int]) -> pl.DataFrame:
    """The contexts of one question of citation 1, as (rank, PMID)."""
    row = {
        "pmid": 1,
        "role": "domain",
        "branch": "C23",
        "question": "Does compound 1 reduce fever in adults?",
        "heading_uis": [],
        "contexts": [
            {
                "rank": rank,
                "pmid": pmid,
                "content_hash": "h",
                "score": 0.1,
                "found_by": "both",
                "heading_uis": [],
            }
            for rank, pmid in found
        ],
        "source_rank": None,
        "failure": None,
    }
    return CandidateContexts.validate(pl.DataFrame([row], schema=CandidateContexts.create_empty().schema))


def test_a_source_among_its_own_contexts_fails_the_check() -> None:
    assert checks.no_citation_is_its_own_context(contexts((1, 2), (2, 3))).passed
    assert not checks.no_citation_is_its_own_context(contexts((1, 2), (2, 1))).passed


@pytest.mark.parametrize(
    "found",
    [((2, 2),), ((1, 2), (3, 3)), ((1, 2), (2, 2)), tuple((rank, rank + 1) for rank in range(1, 22))],
    ids=["not from 1", "with a gap", "one twice", "too many"],
)
def test_contexts_out_of_order_fail_the_check(found: tuple[tuple[int, int], ...]) -> None:
    assert not checks.contexts_are_few_and_ranked_from_1(contexts(*found)).passed
    assert checks.contexts_are_few_and_ranked_from_1(contexts((1, 2), (2, 3))).passed
    assert checks.contexts_are_few_and_ranked_from_1(contexts()).passed
