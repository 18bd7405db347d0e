"""A corpus without one of the agents: what it lacks, what stays, and that it is made as the corpus is."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from ablation_tables import (
    AGENTS,
    CITED,
    CORPUS_RULES,
    HELD_OUT,
    NOBODY,
    PMIDS,
    TRAIN,
    agents,
    answer,
    asked_of,
    current,
    lineage,
    preference,
    table,
)
from asking import Writer, asking

from mkailin_assets import generations
from mkailin_assets.ablation.ablations import ABLATIONS, drawn, only_of
from mkailin_assets.ablation.corpora import Agents, Lineage, MissingBranch, ablated_corpus, differences
from mkailin_assets.ablation.tables import AblatedExample
from mkailin_assets.corpus.decontamination import benchmark_questions
from mkailin_assets.corpus.tables import TrainingExample
from mkailin_assets.preferences.tables import QuestionPreference
from mkailin_resources.storage import Storage


def without(
    ablation: str, of: Lineage, folder: Path, agents: Agents = AGENTS, benchmark: pl.DataFrame = NOBODY
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of an ablated corpus, and what stayed out of it."""
    made = ablated_corpus(ablation, of, agents, current(), benchmark, CORPUS_RULES, folder)
    return AblatedExample.validate(made.rows.collect().sort("pmid")), made.exclusions


def trained(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(split="train")


@pytest.fixture(scope="module")
def whole() -> Lineage:
    return lineage(champion=TRAIN[:4])


def test_the_control_is_the_training_corpus_itself(whole: Lineage, tmp_path: Path) -> None:
    rows, exclusions = without("all_agents", whole, tmp_path)
    assert rows.select(TrainingExample.column_names()).equals(whole.training_corpus.collect().sort("pmid"))
    assert rows.height == len(PMIDS)
    assert exclusions.is_empty()


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_all_ablations_hold_out_the_rows_that_the_corpus_does(
    whole: Lineage, tmp_path: Path, ablation: str
) -> None:
    rows, _ = without(ablation, whole, tmp_path)
    held_out = rows.filter(pl.col("split") != "train").select(TrainingExample.column_names())
    assert held_out.equals(whole.training_corpus.filter(pl.col("split") != "train").collect().sort("pmid"))
    assert held_out["pmid"].to_list() == HELD_OUT


def test_without_dpo_only_the_champions_own_questions_change(whole: Lineage, tmp_path: Path) -> None:
    rows, _ = without("no_dpo", whole, tmp_path)
    assert differences(rows.lazy(), whole.training_corpus) == {
        "same": len(TRAIN) - 4,
        "other_text": 0,
        "other_question": 4,
        "added": 0,
        "gone": 0,
    }
    changed = rows.filter(pl.col("pmid").is_in(TRAIN[:4]))
    assert changed["generator"].unique().to_list() == ["the domain one"]
    cited = changed["made_of"].list.last().struct.field("pmid")
    assert cited.to_list() == [CITED["domain"] + pmid for pmid in TRAIN[:4]]


def test_without_a_trained_champion_no_dpo_is_the_corpus_and_nobody_is_asked(tmp_path: Path) -> None:
    answerer = Writer(answer)
    rows, _ = without("no_dpo", of := lineage(), tmp_path, agents(answerer))
    assert differences(rows.lazy(), of.training_corpus)["same"] == len(TRAIN)
    assert answerer.asked == []


def test_one_generator_asks_of_every_citation_and_what_it_cannot_ask_is_told(tmp_path: Path) -> None:
    of = lineage({(TRAIN[0], role): None for role in ("domain", "general")}, champion=TRAIN[1:3])
    rows, exclusions = without("one_generator", of, tmp_path)
    assert trained(rows)["generator"].unique().to_list() == ["the general one"]
    assert trained(rows)["pmid"].to_list() == TRAIN[1:]
    assert trained(rows)["chosen_by"].unique().to_list() == ["the only generator"]
    assert trained(rows)["mesh_score"].unique().to_list() == [0.25], "the score of its own contexts"
    assert trained(rows)["mesh_margin"].null_count() == len(TRAIN) - 1
    (out,) = exclusions.to_dicts()
    assert (out["pmid"], out["stage"]) == (TRAIN[0], "evaluation")
    assert out["reason"] == "no question to answer: the general one saw no claim", "whoever else saw none"


def test_without_retrieval_neither_texts_nor_answers_know_of_contexts(whole: Lineage, tmp_path: Path) -> None:
    answerer = Writer(answer)
    rows, exclusions = without("no_retrieval", whole, tmp_path, agents(answerer))
    assert exclusions.is_empty(), "a rule about what a search finds judged what nobody searched for"
    assert {request.contexts for request in answerer.asked} == {()}
    assert trained(rows)["context_pmids"].list.len().sum() == 0
    assert trained(rows)["mesh_score"].null_count() == len(TRAIN), "there is nothing to score"
    assert trained(rows)["made_of"].list.len().unique().to_list() == [1]
    read = "\n".join(
        trained(rows).select(pl.concat_str("context", "pretraining_text", "long_answer")).to_series()
    )
    assert "agrees" not in read
    assert "beside 0 more" in read
    assert differences(rows.lazy(), whole.training_corpus)["other_text"] == len(TRAIN)


def test_a_drawn_preference_takes_either_question_with_its_own_contexts(tmp_path: Path) -> None:
    of = lineage({(TRAIN[0], "general"): None, (TRAIN[1], "domain"): None})
    rows, _ = without("random_preference", of, tmp_path)
    asked = trained(rows)["generator"].value_counts()
    assert dict(asked.iter_rows()) == {"the domain one": 6, "the general one": 18}, "another coin"
    of_two = trained(rows).filter(pl.col("pmid").is_in(TRAIN[2:]))
    assert of_two["chosen_by"].unique().to_list() == ["drawn at random"]
    roles = of_two["generator"].str.extract("the (.*) one").to_list()
    cited = [CITED[role] + pmid for role, pmid in zip(roles, of_two["pmid"], strict=True)]
    assert of_two["made_of"].list.last().struct.field("pmid").to_list() == cited
    again, _ = without("random_preference", of, tmp_path)
    assert again.equals(rows)


def test_without_the_filter_a_refused_pair_enters_and_what_is_no_pair_does_not(tmp_path: Path) -> None:
    refused, unasked, given_away = TRAIN[:3]
    refused_too = HELD_OUT[0]
    questions = {(refused, "domain"): "So?", (refused_too, "domain"): "Oh?"}
    questions |= {(unasked, role): None for role in ("domain", "general")}
    benchmark = benchmark_questions([(given_away, "Is water wet?")])
    of = lineage(questions, benchmark=benchmark)
    assert set(PMIDS) - set(of.training_corpus.collect()["pmid"]) == {*TRAIN[:3], refused_too}
    rows, exclusions = without("no_evaluator_filter", of, tmp_path, benchmark=benchmark)
    assert set(PMIDS) - set(rows["pmid"]) == {unasked, given_away, refused_too}
    assert exclusions.select("pmid", "stage").rows() == [
        (unasked, "evaluation"),
        (given_away, "contamination"),
    ]


def test_what_a_held_out_question_asks_is_not_trained_on(tmp_path: Path) -> None:
    held_out = max(HELD_OUT)
    before, asked = TRAIN[0], asked_of(held_out, "domain")
    of = lineage({(before, "general"): asked})
    rows, exclusions = without("one_generator", of, tmp_path)
    assert before not in rows["pmid"]
    assert held_out in rows["pmid"]
    (out,) = exclusions.to_dicts()
    assert (out["pmid"], out["stage"]) == (before, "duplicate")
    assert out["reason"] == f"asks the same as PMID {held_out}"


def test_what_was_answered_for_the_corpus_is_not_paid_for_again(tmp_path: Path) -> None:
    answerer = Writer(answer, is_paid=True)
    paid = agents(answerer, asking(tmp_path / "root"))
    of = lineage(agents=paid)
    asked = len(answerer.asked)
    assert asked == len(PMIDS)
    rows, _ = without("random_preference", of, tmp_path, paid)
    drawn = trained(rows)["generator"].str.contains("general").sum()
    assert 0 < drawn < len(TRAIN)
    assert len(answerer.asked) == asked + drawn
    without("random_preference", of, tmp_path, paid)
    without("one_generator", of, tmp_path, paid)
    assert len(answerer.asked) == asked + len(TRAIN), "the general one's questions, each once"


def test_what_an_ablated_corpus_rests_on_is_not_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(root=str(tmp_path))
    monkeypatch.setattr(generations, "TABLES_OF_TEXTS", ("ablated_corpus",))
    rows, _ = without("one_generator", lineage(), tmp_path)
    storage.write_table(rows, "ablated_corpus", "one_generator")
    used = generations.used_texts(storage)
    assert len(used) == len(TRAIN)
    assert used == set(trained(rows)["fingerprint"])


def test_a_branch_that_lost_a_table_is_named(whole: Lineage, tmp_path: Path) -> None:
    broken = replace(whole, candidate_questions={"C04": whole.candidate_questions["C04"]})
    with pytest.raises(MissingBranch, match="has the branch F03, and candidate_questions has not"):
        without("one_generator", broken, tmp_path)


def test_a_choice_that_is_drawn_otherwise_turns_its_scores() -> None:
    questions = {(pmid, role): asked_of(pmid, role) for pmid in TRAIN for role in CITED}
    preferences = table(QuestionPreference, [preference(pmid, questions) for pmid in TRAIN])
    told = (
        drawn(preferences)
        .select("chosen_role", "chosen_score", "margin", "evaluator_margin")
        .unique()
        .sort("margin")
    )
    assert told.rows() == [("general", 0.25, -0.5, None), ("domain", 0.75, 0.5, None)]
    told = (
        only_of(preferences, "general")
        .select("chosen_role", "chosen_score", "rejected_question", "margin")
        .unique()
    )
    assert told.rows() == [("general", 0.25, None, None)]
