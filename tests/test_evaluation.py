"""Evaluation: reading benchmarks, deciding, and saying how sure a score is."""

import json
import math
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from asking import Writer, unpaid
from tiny_corpus import CONDITIONS, SUBSTANCES, training_examples

from mkailin_assets.evaluation import checks
from mkailin_assets.evaluation.assets import benchmark_report
from mkailin_assets.evaluation.benchmark import READ_THIS_FIRST, score
from mkailin_assets.evaluation.predict import (
    Predictions,
    chat,
    decision_scores,
    predict_majority,
    predict_with_generator,
    predict_with_model,
)
from mkailin_assets.evaluation.pubmedqa import NotPubMedQA, PubMedQAItem, read_pubmedqa
from mkailin_assets.evaluation.tables import BenchmarkResult
from mkailin_assets.intervals import (
    Estimate,
    accuracy,
    macro_f1,
    macro_f1_of_counts,
    paired_differences,
)
from mkailin_assets.tables import table
from mkailin_assets.training.checkpoints import (
    checkpoint_row,
    load_base,
    load_finetuned,
    read_record,
    train_checkpoint,
)
from mkailin_assets.training.finetune import FinetuneSettings
from mkailin_assets.training.tables import Checkpoint
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.generation import Generation
from mkailin_resources.models.extractive.agents import ConclusionAnswerer
from mkailin_resources.models.interface import Answer, GenerationRequest, GenerationResult
from mkailin_resources.storage import ParquetTables, Storage


def entry(question: str = "Does amarin relieve pain?", decision: str = "no", **other: Any) -> dict[str, Any]:
    """An item as PubMedQA's files hold it."""
    return {
        "QUESTION": question,
        "CONTEXTS": ["We gave amarin or placebo to 40 patients.", "Pain did not differ between groups."],
        "LABELS": ["METHODS", "RESULTS"],
        "MESHES": ["Pain"],
        "YEAR": "2020",
        "final_decision": decision,
        "LONG_ANSWER": "Amarin was no better than placebo.",
    } | other


def write(path: Path, entries: object) -> Path:
    path.write_text(json.dumps(entries))
    return path


@pytest.fixture(scope="session")
def benchmark_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    entries = {
        str(91000001 + index): entry(f"Does {substance} relieve {condition}?", decision)
        for index, (substance, condition, decision) in enumerate(
            zip(SUBSTANCES * 3, CONDITIONS * 3, ("no", "yes", "no", "maybe") * 3, strict=False)
        )
    }
    return write(tmp_path_factory.mktemp("benchmark") / "pqa_tiny.json", entries)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was taught to answer no, whatever the question."""
    folder = tmp_path_factory.mktemp("checkpoint")
    settings = FinetuneSettings(vocabulary=350, max_length=128, epochs=8, max_steps=20, learning_rate=1e-2)
    train_checkpoint(training_examples(decision="no"), settings, folder, lambda line: None)
    return folder


# Reading


def test_an_item_is_its_question_contexts_and_decision(tmp_path: Path) -> None:
    benchmark = read_pubmedqa(write(tmp_path / "pqa.json", {"91000001": entry()}))
    assert benchmark.name == "pqa"
    assert benchmark.refused == {}
    [item] = benchmark
    assert (item.pmid, item.question, item.decision) == (91000001, "Does amarin relieve pain?", "no")
    assert item.contexts[1] == "Pain did not differ between groups."
    assert not hasattr(item, "LONG_ANSWER")


@pytest.mark.parametrize(
    ("broken", "cause"),
    [
        ({"QUESTION": " "}, "QUESTION"),
        ({"CONTEXTS": []}, "CONTEXTS"),
        ({"CONTEXTS": "one text", "LABELS": []}, "CONTEXTS"),
        ({"final_decision": "perhaps"}, "final_decision"),
        ({"LABELS": ["RESULTS"]}, "1 LABELS for 2 CONTEXTS"),
    ],
)
def test_a_malformed_item_is_refused_with_its_id_and_cause(
    tmp_path: Path, broken: dict[str, Any], cause: str
) -> None:
    entries = {"91000001": entry(), "91000002": entry(**broken)}
    benchmark = read_pubmedqa(write(tmp_path / "pqa.json", entries))
    assert [item.pmid for item in benchmark] == [91000001]
    assert cause in benchmark.refused["91000002"]


def test_an_id_that_is_no_pmid_and_an_item_that_is_no_object_are_refused(tmp_path: Path) -> None:
    entries = {"91000001": entry(), "one": entry(), "91000003": "a text"}
    assert set(read_pubmedqa(write(tmp_path / "pqa.json", entries)).refused) == {"one", "91000003"}


@pytest.mark.parametrize("entries", [[entry()], {}, {"91000001": {"question": "BioASQ?"}}, "text"])
def test_another_format_is_refused(tmp_path: Path, entries: object) -> None:
    with pytest.raises(NotPubMedQA, match=r"pqa\.json"):
        read_pubmedqa(write(tmp_path / "pqa.json", entries))


def test_a_file_that_is_missing_or_no_json_is_refused_and_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"91000001": {"QUESTION": ')
    for name in ("cut.json", "missing.json"):
        with pytest.raises(NotPubMedQA, match=f"{name}.*MKAILIN_PUBMEDQA"):
            read_pubmedqa(tmp_path / name)


def test_the_real_benchmark_is_read_and_its_majority_is_as_published(real_data: Path) -> None:
    benchmark = read_pubmedqa(real_data / "pubmedqa" / "pqal_dev500.json")
    assert (len(benchmark.items), benchmark.refused) == (500, {})
    [row] = score(benchmark, [predict_majority(benchmark.items, "question_only")]).iter_rows(named=True)
    assert row["accuracy"] == pytest.approx(0.552)
    assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx((0.5082, 0.5951), abs=1e-4)
    assert row["macro_f1"] == pytest.approx(2 * 276 / (500 + 276) / 3)


# How sure


def test_accuracy_has_wilsons_interval() -> None:
    gold, predicted = ["yes"] * 10, ["yes"] * 7 + ["no"] * 3
    z, n, p = 1.959964, 10, 0.7
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = accuracy(gold, predicted)
    assert (found.value, found.low, found.high) == pytest.approx(
        (0.7, middle - half, middle + half), abs=1e-6
    )


def _decisions(seed: int, items: int = 120, kept: float = 0.6) -> tuple[list[str], list[str]]:
    import numpy as np

    rng = np.random.default_rng(seed)
    gold = rng.choice(["yes", "no", "maybe"], size=items, p=[0.55, 0.35, 0.1])
    other = rng.choice(["yes", "no", "maybe"], size=items)
    return list(gold), list(np.where(rng.random(items) < kept, gold, other))


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_is_that_of_scikit_learn(seed: int) -> None:
    from sklearn.metrics import confusion_matrix, f1_score

    gold, predicted = _decisions(seed, items=12 + seed)
    labels = ["yes", "no", "maybe"]
    expected = f1_score(gold, predicted, labels=labels, average="macro", zero_division=0)
    assert macro_f1(gold, predicted).value == pytest.approx(expected)
    counts = confusion_matrix(gold, predicted, labels=labels)
    assert macro_f1_of_counts(counts) == pytest.approx(expected)


def test_the_bootstrap_draws_what_drawing_items_would() -> None:
    import numpy as np
    from sklearn.metrics import f1_score

    gold, predicted = (np.array(decisions) for decisions in _decisions(1))
    rng = np.random.default_rng(0)
    drawn = [rng.integers(len(gold), size=len(gold)) for _ in range(800)]
    scores = [f1_score(gold[one], predicted[one], average="macro", zero_division=0) for one in drawn]
    found = macro_f1(list(gold), list(predicted))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(scores, [0.025, 0.975])), abs=0.015)
    assert found == macro_f1(list(gold), list(predicted))


def test_a_model_is_no_better_than_itself() -> None:
    gold, predicted = _decisions(2)
    assert set(paired_differences(gold, predicted, predicted).values()) == {Estimate(0.0, 0.0, 0.0)}


def test_a_better_model_leads_by_the_difference_of_the_scores() -> None:
    gold, worse = _decisions(3, kept=0.2)
    better = [
        right if place % 5 else wrong for place, (right, wrong) in enumerate(zip(gold, worse, strict=True))
    ]
    lead = paired_differences(gold, better, worse)
    for name, function in (("accuracy", accuracy), ("macro_f1", macro_f1)):
        difference = function(gold, better).value - function(gold, worse).value
        assert lead[name].value == pytest.approx(difference)
        assert 0 < lead[name].low < difference < lead[name].high


# Deciding


def test_decisions_are_scored_as_if_each_was_read_alone(checkpoint: Path) -> None:
    import torch

    model, tokenizer = load_finetuned(checkpoint)
    prompts = [tokenizer(text)["input_ids"] for text in ("Does it?", "Does amarin relieve pain, or not?")]
    decisions = [tokenizer(text)["input_ids"] for text in ("no", "perhaps so", "immunohistochemistry")]
    assert len({len(decision) for decision in decisions}) > 1
    with torch.inference_mode():
        scores = decision_scores(model, prompts, decisions)
        for row, prompt in enumerate(prompts):
            for column, decision in enumerate(decisions):
                logits = model(input_ids=torch.tensor([prompt + decision])).logits[0].log_softmax(-1)
                alone = [logits[len(prompt) - 1 + place, token] for place, token in enumerate(decision)]
                expected = torch.stack(alone).mean().item()
                assert scores[row, column].item() == pytest.approx(expected, abs=1e-5)


def test_a_model_decides_as_it_was_taught_and_its_base_does_not(
    checkpoint: Path, benchmark_file: Path
) -> None:
    items = read_pubmedqa(benchmark_file).items
    for protocol in ("reasoning_required", "question_only"):
        taught = predict_with_model("finetuned", *load_finetuned(checkpoint), items, protocol)
        untaught = predict_with_model("base", *load_base(checkpoint), items, protocol)
        assert set(taught.decisions) == {"no"}
        assert untaught.decisions != taught.decisions


def test_a_decision_does_not_depend_on_the_other_items(checkpoint: Path, benchmark_file: Path) -> None:
    items = read_pubmedqa(benchmark_file).items
    model, tokenizer = load_base(checkpoint)
    together = predict_with_model("base", model, tokenizer, items, "reasoning_required").decisions
    backwards = predict_with_model("base", model, tokenizer, items[::-1], "reasoning_required").decisions
    alone = [
        predict_with_model("base", model, tokenizer, [item], "reasoning_required").decisions[0]
        for item in items
    ]
    assert together == backwards[::-1] == alone


def test_a_long_abstract_does_not_push_the_question_out(checkpoint: Path) -> None:
    item = _item(CONTEXTS=["word " * 2000], LABELS=[])
    assert predict_with_model("base", *load_base(checkpoint), [item], "reasoning_required").decisions


def test_a_question_too_long_for_the_model_counts_as_maybe_and_is_told(checkpoint: Path) -> None:
    items = [_item(), _item(91000002, QUESTION="Why, " * 400 + "?")]
    found = predict_with_model("finetuned", *load_finetuned(checkpoint), items, "question_only")
    assert found.decisions == ["no", "maybe"]
    assert "more than" in found.failures[91000002]


def test_a_question_is_asked_as_the_corpus_asks_it() -> None:
    [example] = training_examples(1, 0, 0).iter_rows(named=True)
    item = _item(QUESTION=example["question"], CONTEXTS=[example["context"]], LABELS=[])
    messages, context = chat(item, "reasoning_required")
    assert messages == example["messages"][:1]
    assert context == example["context"]
    assert "Context" not in chat(item, "question_only")[0][0]["content"]


def recorder() -> Writer:
    """Answers with and without a decision and with no answer, in turn, where it is shown an abstract."""
    answer = Answer(long_answer="It does.", decision="yes", evidence=["It does."])
    undecided = answer.model_copy(update={"decision": None})
    texts = [answer.model_dump_json(), undecided.model_dump_json(), "no JSON"]

    def write(request: GenerationRequest) -> GenerationResult:
        if not request.document.sections:
            return GenerationResult(request.key, failure="there is no abstract")
        return GenerationResult(request.key, text=texts[int(request.key) % 91000001 % 3])

    return Writer(write)


def _item(pmid: int = 91000001, **other: Any) -> PubMedQAItem:
    return PubMedQAItem.model_validate(entry(**other) | {"pmid": pmid})


def test_what_a_generator_leaves_open_counts_as_maybe_and_is_told() -> None:
    items = [_item(91000001 + index) for index in range(3)]
    found = predict_with_generator(recorder(), items, "reasoning_required", unpaid)
    assert found.decisions == ["yes", "maybe", "maybe"]
    assert list(found.failures) == [91000002, 91000003]
    assert found.failures[91000002] == "the answer has no decision"
    assert found.failures[91000003].startswith("not an answer")


def test_a_generator_is_shown_the_abstract_and_never_the_long_answer() -> None:
    asked = recorder()
    predict_with_generator(asked, [_item()], "reasoning_required", unpaid)
    [request] = asked.asked
    assert [section.label for section in request.document.sections] == ["METHODS", "RESULTS"]
    assert request.question == "Does amarin relieve pain?"
    assert "no better than placebo" not in str(request)
    predict_with_generator(asked, [_item()], "question_only", unpaid)
    assert asked.asked[1].document.sections == ()


def test_who_answers_nothing_has_no_score(benchmark_file: Path) -> None:
    benchmark = read_pubmedqa(benchmark_file)
    silent = predict_with_generator(recorder(), benchmark.items, "question_only", unpaid)
    assert score(benchmark, [silent]).is_empty()


# The asset


@pytest.fixture(scope="session")
def materialized(
    checkpoint: Path, benchmark_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dg.ExecuteInProcessResult, Path]:
    root = tmp_path_factory.mktemp("storage")
    storage = Storage(root=str(root))

    @dg.asset(**table(Checkpoint))
    def finetuned_checkpoint() -> pl.DataFrame:
        return checkpoint_row(str(checkpoint), read_record(checkpoint))

    run = dg.materialize(
        [
            finetuned_checkpoint,
            benchmark_report,
            checks.every_protocol_compares_the_models,
            checks.intervals_contain_their_scores,
            checks.finetuning_does_not_harm,
        ],
        resources={
            "storage": storage,
            "io_manager": ParquetTables(storage=storage),
            "benchmarks": BenchmarkFiles(pubmedqa=str(benchmark_file)),
            "answer_model": ConclusionAnswerer(),
            "generation": Generation(storage=storage),
        },
    )
    return run, root


def test_the_report_compares_the_models_and_says_how_weak_they_are(
    materialized: tuple[dg.ExecuteInProcessResult, Path],
) -> None:
    run, root = materialized
    results = BenchmarkResult.validate(run.output_for_node("benchmark_report"))
    assert set(results["benchmark"]) == {"pqa_tiny"}
    assert {"majority", "base", "finetuned"} <= set(results["model"])
    assert all(evaluation.passed for evaluation in run.get_asset_check_evaluations())
    text = (root / "reports" / "benchmark_report.md").read_text()
    assert READ_THIS_FIRST in text
    assert "| finetuned |" in text
    assert "Fine-tuned minus base: accuracy" in text
    metadata = run.asset_materializations_for_node("benchmark_report")[0].metadata
    assert metadata["accuracy"].value.startswith("![Accuracy on pqa_tiny")
    assert "| question_only | accuracy |" in metadata["finetuned_minus_base"].value


@pytest.fixture
def results(benchmark_file: Path) -> pl.DataFrame:
    benchmark = read_pubmedqa(benchmark_file)
    gold = [item.decision for item in benchmark]
    decided = {"majority": ["no"] * len(gold), "base": ["maybe"] * len(gold), "finetuned": gold}
    return score(
        benchmark,
        [
            Predictions(model, protocol, decisions, {})
            for protocol in ("reasoning_required", "question_only")
            for model, decisions in decided.items()
        ],
    )


def test_a_model_that_is_missing_fails_its_check(results: pl.DataFrame) -> None:
    assert checks.every_protocol_compares_the_models(results).passed
    missing = results.filter((pl.col("model") != "base") | (pl.col("protocol") != "question_only"))
    result = checks.every_protocol_compares_the_models(missing)
    assert not result.passed
    assert result.description == "no score of base under question_only"


def test_a_score_outside_its_interval_fails_its_check(results: pl.DataFrame) -> None:
    assert checks.intervals_contain_their_scores(results).passed
    for column in ("accuracy_low", "macro_f1_low"):
        broken = results.with_columns(pl.lit(1.0).alias(column))
        assert not checks.intervals_contain_their_scores(broken).passed


def test_a_model_that_training_made_worse_is_warned_of(results: pl.DataFrame) -> None:
    assert checks.finetuning_does_not_harm(results).passed
    swapped = results.with_columns(model=pl.col("model").replace({"base": "finetuned", "finetuned": "base"}))
    result = checks.finetuning_does_not_harm(swapped)
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN
    assert "the base has 100.0%" in result.description
