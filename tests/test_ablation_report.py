"""What is told of each agent, by models of one budget; and that each check finds what it looks for."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from benchmark_answers import answers, choices, texts
from tiny_corpus import training_examples

from mkailin_assets.ablation import checks, report
from mkailin_assets.ablation.ablations import ABLATIONS, ALL_AGENTS, TAKEN_OUT
from mkailin_assets.ablation.assets import AblationConfig
from mkailin_assets.ablation.models import a_step, seeded, with_budget
from mkailin_assets.ablation.tables import AblatedCheckpoint, AblatedExample, AblationResult
from mkailin_assets.corpus.recalls import trained_on
from mkailin_assets.evaluation.contamination import LEAKS, Recheck
from mkailin_assets.training.recipes import RECIPES, NoRecipe
from mkailin_resources.benchmarks import BenchmarkFiles

CORPUS = training_examples()
CORPUS_ABLATED = CORPUS.match_to_schema(AblatedExample.create_empty().schema, missing_columns="insert")
GOLD = ["yes", "no"] * 20
WRONG = ["no", "yes"] * 20


def checkpoint(ablation: str, **changes: Any) -> pl.DataFrame:
    row = {
        "ablation": ablation,
        "taken_out": TAKEN_OUT[ablation],
        "uri": f"/checkpoints/{ablation}",
        "fingerprint": f"of {ablation}",
        "pretrained_uri": f"/checkpoints/pretrained {ablation}",
        "pretrained_fingerprint": f"of pretrained {ablation}",
        "data_fingerprint": trained_on(CORPUS.lazy()),
        "base_model": "small Llama of random weights, 9 parameters",
        "recipe": "embedded",
        "conditions": "of all",
        "method": "full",
        "examples": 24,
    }
    for stage in ("pretraining", "finetuning"):
        told = {"steps": 6, "budget": 6000, "tokens": 6000, "loss": 3.0, "validation_loss": 3.5}
        row |= {f"{stage}_{name}": value for name, value in told.items()}
    return AblatedCheckpoint.validate(
        pl.DataFrame([row | changes], schema=AblatedCheckpoint.create_empty().schema)
    )


def ablated(*names: str, **same: str) -> report.Ablated:
    """What was made of these ablations; `same` have the model of another."""
    made = {name: checkpoint(name) for name in names}
    made |= {name: checkpoint(name, fingerprint=f"of {other}") for name, other in same.items()}
    return report.Ablated.of(dict.fromkeys(made, CORPUS_ABLATED.lazy()), made, CORPUS.lazy())


def asked(model: str, wrong: int, nats: float) -> list[dict[str, Any]]:
    said = [*WRONG[:wrong], *GOLD[wrong:]]
    return [*choices(GOLD, said, model=model), *texts([nats, nats + 1, nats], 100, model)]


def row_of(results: pl.DataFrame, ablation: str, metric: str) -> dict[str, Any]:
    (row,) = results.filter(ablation=ablation, metric=metric).to_dicts()
    return row


def test_the_worth_of_an_agent_is_a_difference_taken_item_by_item() -> None:
    made = ablated(ALL_AGENTS, "no_retrieval", "one_generator")
    both = [*asked(ALL_AGENTS, 4, 80), *asked("no_retrieval", 24, 90)]
    told = answers(*both, *asked("one_generator", 5, 79.9))
    results = AblationResult.validate(report.results(made, told))
    assert row_of(results, ALL_AGENTS, "accuracy")["value"] == 0.9
    assert row_of(results, ALL_AGENTS, "accuracy")["difference"] is None
    worse = row_of(results, "no_retrieval", "accuracy")
    assert (worse["value"], worse["better"]) == (0.4, False)
    assert worse["difference"] == pytest.approx(-0.5)
    assert worse["difference_low"] < -0.5 < worse["difference_high"] < 0
    assert row_of(results, "no_retrieval", "bits_per_byte")["better"] is False, "more bits are worse"
    assert row_of(results, "one_generator", "bits_per_byte")["better"] is True
    assert row_of(results, "one_generator", "accuracy")["better"] is None
    assert results["tokens"].unique().to_list() == [12000]
    said = report.in_short(made, results)
    assert said["no_retrieval"].startswith("of 3 measures, worse in 3 (")
    assert "better in 1 (Held-out corpus: texts, bits a byte)" in said["one_generator"]
    assert "Of 6 differences, 4 have an interval without 0" in report.by_chance(results)
    assert report.by_chance(results).endswith("What another seed makes was not measured.")


def test_a_difference_that_another_seed_makes_too_tells_nothing() -> None:
    made = ablated(ALL_AGENTS, "another_seed", "no_retrieval", "one_generator")
    both = [*asked(ALL_AGENTS, 4, 80), *asked("another_seed", 5, 85), *asked("no_retrieval", 24, 90)]
    told = answers(*both, *asked("one_generator", 4, 84))
    results = AblationResult.validate(report.results(made, told))
    assert row_of(results, "no_retrieval", "bits_per_byte")["better"] is False, "twice what a seed makes"
    by_generator = row_of(results, "one_generator", "bits_per_byte")
    assert by_generator["difference_low"] > 0
    assert by_generator["better"] is None, "less than what a seed makes"
    assert row_of(results, "another_seed", "bits_per_byte")["better"] is None
    assert report.in_short(made, results)["another_seed"].startswith("what chance alone changes")
    said = report.by_chance(results)
    assert "Of 6 differences, 4 have an interval without 0" in said
    assert said.endswith("3 of them are larger than what another seed makes.")


def test_an_ablation_with_the_same_model_is_told_and_not_compared() -> None:
    made = ablated(ALL_AGENTS, "no_retrieval", no_dpo=ALL_AGENTS)
    told = answers(*asked(ALL_AGENTS, 4, 80), *asked("no_retrieval", 24, 90))
    results = AblationResult.validate(report.results(made, told))
    same = results.filter(ablation="no_dpo")
    assert same["same_as"].unique().to_list() == [ALL_AGENTS]
    assert same["difference"].null_count() == same.height == 3
    assert same["value"].to_list() == results.filter(ablation=ALL_AGENTS)["value"].to_list()
    said = report.in_short(made, results)["no_dpo"]
    assert said.startswith("the same data, and so the model of all agents")
    text = report.render(made, results, {})
    assert "| accuracy | likelihood | no dpo | 90.0% (76.9% to 96.0%) | the model of all agents |" in text
    assert "Of 3 differences" in text


def test_a_corpus_that_gives_an_item_away_is_told_at_the_top() -> None:
    made = ablated(ALL_AGENTS, "no_retrieval")
    results = report.results(made, answers(*asked(ALL_AGENTS, 4, 80), *asked("no_retrieval", 24, 90)))
    clean = Recheck(pl.DataFrame(schema=LEAKS), examples=24, items=40)
    row = {name: "" for name in LEAKS} | {"benchmark": "pqal", "pmid": 1}
    leaked = Recheck(pl.DataFrame([row], schema=LEAKS), examples=24, items=40)
    told = report.render(made, results, {ALL_AGENTS: clean, "no_retrieval": clean}).splitlines()[2]
    assert told == "No contamination found: none of 2 corpora gives away any measured item."
    told = report.render(made, results, {ALL_AGENTS: clean, "no_retrieval": leaked}).splitlines()[2]
    assert told.startswith("no retrieval: **CONTAMINATED: 1 of the 24 examples")
    assert told.endswith("Read no scores of this model there.")


def test_what_was_not_made_is_told_and_its_absence_is_a_warning() -> None:
    made = ablated(ALL_AGENTS, "no_retrieval")
    told = answers(*asked(ALL_AGENTS, 4, 80), *asked("no_retrieval", 24, 90))
    results = report.results(made, told)
    assert set(made.missing) == set(ABLATIONS) - {ALL_AGENTS, "no_retrieval"}
    assert "- one generator: not made: materialize its partitions" in report.render(made, results, {})
    check = checks.no_ablation_is_missing(results)
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert "one_generator" in (check.description or "")
    assert checks.no_ablation_is_missing(pl.DataFrame({"ablation": ABLATIONS})).passed


def test_without_the_model_of_all_agents_there_are_scores_and_no_differences() -> None:
    made = ablated("no_retrieval")
    results = AblationResult.validate(report.results(made, answers(*asked("no_retrieval", 24, 90))))
    assert results["difference"].null_count() == 3
    assert report.in_short(made, results)["no_retrieval"] == "not compared, since all agents is missing"


def test_a_corpus_without_its_model_is_missing_and_rows_are_counted_by_what_became_of_them() -> None:
    other = CORPUS_ABLATED.with_columns(
        example_hash=pl.when(pl.col("pmid") == 90000002).then(pl.lit("other")).otherwise("example_hash")
    ).filter(pl.col("pmid") != 90000001)
    rows = {ALL_AGENTS: CORPUS_ABLATED.lazy(), "no_dpo": other.lazy(), "no_retrieval": other.lazy()}
    made = report.Ablated.of(rows, {name: checkpoint(name) for name in (ALL_AGENTS, "no_dpo")}, CORPUS.lazy())
    assert "no_retrieval" in made.missing
    counted = ["ablation", "examples", "same", "other_text", "other_question", "added", "gone"]
    assert made.corpora.select(counted).rows() == [
        (ALL_AGENTS, 24, 24, 0, 0, 0, 0),
        ("no_dpo", 23, 22, 1, 0, 0, 1),
    ]


def test_without_any_model_the_report_says_what_to_make() -> None:
    with pytest.raises(report.NothingAblated, match=r"materialize ablated_checkpoint .* \(no_dpo\)"):
        report.Ablated.of({"no_dpo": CORPUS_ABLATED.lazy()}, {}, CORPUS.lazy())


def test_a_budget_fixes_steps_and_sequences_whatever_a_corpus_has() -> None:
    recipe = with_budget(RECIPES["1b"], 10_000_000)
    for stage in (recipe.pretraining, recipe.finetuning):
        room = stage.max_steps * a_step(stage)
        assert 0 <= room - 10_000_000 < a_step(stage)
        assert stage.steps(examples=1) == stage.steps(examples=10**9) == stage.max_steps
        assert stage.patience == 0
    assert (recipe.pretraining.packing, recipe.finetuning.packing) == ("wrapped", "bfd")
    own = with_budget(RECIPES["embedded"], None)
    assert own.pretraining.max_steps == RECIPES["embedded"].pretraining.max_steps
    assert own.finetuning.packing == "bfd", "an example a sequence would leave room of another size each"


def test_one_configuration_changes_the_recipe_and_the_budget_of_all() -> None:
    changed = AblationConfig(tokens=4096, recipe="8b", seed=3, max_length=512).budgeted(RECIPES["embedded"])
    assert (changed.name, changed.pretraining.seed, changed.finetuning.max_length) == ("8b", 3, 512)
    assert changed.pretraining.max_steps == 1
    with pytest.raises(NoRecipe, match="there is no recipe '9b'"):
        AblationConfig(recipe="9b").budgeted(RECIPES["embedded"])


def test_one_ablation_alone_trains_by_another_seed() -> None:
    recipe = RECIPES["embedded"]
    assert seeded(recipe, "no_retrieval") == seeded(recipe, ALL_AGENTS) == recipe
    other = seeded(recipe, "another_seed")
    assert other.pretraining.seed == recipe.pretraining.seed + 1
    assert other.finetuning.seed == recipe.finetuning.seed + 1


def test_budgets_that_are_not_equal_are_found() -> None:
    whole = {name: checkpoint(name) for name in ABLATIONS}
    assert checks.budgets_are_equal(whole).passed
    result = checks.budgets_are_equal(whole | {"no_dpo": checkpoint("no_dpo", finetuning_budget=7000)})
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.ERROR
    assert "not the same for all: finetuning_budget" in (result.description or "")
    result = checks.budgets_are_equal(whole | {"no_dpo": checkpoint("no_dpo", conditions="other settings")})
    assert "not the same for all: conditions" in (result.description or "")
    result = checks.budgets_are_equal(whole | {"no_dpo": checkpoint("no_dpo", pretraining_tokens=5000)})
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN
    near = {"pretraining_tokens": 5950, "finetuning_tokens": 5400}
    result = checks.budgets_are_equal(whole | {"no_dpo": checkpoint("no_dpo", **near)})
    assert result.passed
    assert "0.8% apart in pre-training (at most 2%), and 10.0% in fine-tuning" in (result.description or "")


def test_a_loss_that_is_no_number_is_found() -> None:
    assert checks.losses_are_finite(checkpoint(ALL_AGENTS, finetuning_validation_loss=None)).passed
    diverged = checkpoint(ALL_AGENTS).with_columns(pretraining_loss=float("nan"))
    assert not checks.losses_are_finite(diverged).passed


def test_a_model_of_an_earlier_corpus_is_found() -> None:
    check = checks.it_was_trained_on_the_corpus_as_it_is
    assert check(checkpoint(ALL_AGENTS), CORPUS_ABLATED.lazy()).passed
    assert not check(checkpoint(ALL_AGENTS), CORPUS_ABLATED.slice(1).lazy()).passed


def test_held_out_rows_of_another_corpus_are_found() -> None:
    check = checks.held_out_rows_are_those_of_the_corpus
    trained_otherwise = CORPUS_ABLATED.filter(pl.col("pmid") != 90000001)
    assert check(trained_otherwise.lazy(), CORPUS.lazy()).passed
    held_out_otherwise = CORPUS_ABLATED.filter(pl.col("pmid") != CORPUS["pmid"].max())
    assert not check(held_out_otherwise.lazy(), CORPUS.lazy()).passed


def test_an_example_that_is_there_twice_is_found() -> None:
    check = checks.no_example_is_there_twice
    assert check(CORPUS_ABLATED.lazy()).passed
    assert not check(pl.concat([CORPUS_ABLATED, CORPUS_ABLATED.head(1)]).lazy()).passed
    same_citation = CORPUS_ABLATED.head(1).with_columns(example_id=pl.lit("another"))
    assert not check(pl.concat([CORPUS_ABLATED, same_citation]).lazy()).passed


def test_a_benchmark_item_in_an_ablated_corpus_is_found(tmp_path: Path) -> None:
    asked = {
        "QUESTION": "Does iron make people happier?",
        "CONTEXTS": ["We gave iron."],
        "LABELS": ["METHODS"],
    }
    told = {"MESHES": ["Iron"], "YEAR": "2010", "final_decision": "no", "LONG_ANSWER": "It did not."}
    path = tmp_path / "pubmedqa.json"
    path.write_text(json.dumps({"7777": asked | told}))
    benchmarks = BenchmarkFiles(pubmedqa=str(path), retrieval="", others=[])
    check = checks.no_benchmark_item_is_trained_on
    assert check(CORPUS_ABLATED.lazy(), benchmarks=benchmarks).passed
    given_away = CORPUS_ABLATED.with_columns(question=pl.lit("does iron make people HAPPIER"))
    assert not check(given_away.lazy(), benchmarks=benchmarks).passed
