"""Evaluation: reading PubMedQA, and the assets from answers to the report."""

import json
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from tiny_checkpoint import tiny_checkpoint
from tiny_corpus import CONDITIONS, SUBSTANCES, training_examples

from mkailin_assets.corpus.recalls import trained_on
from mkailin_assets.corpus.tables import TrainingExample
from mkailin_assets.evaluation import checks
from mkailin_assets.evaluation.assets import benchmark_answers, scored_benchmarks
from mkailin_assets.evaluation.benchmark import SMALL, contamination_verdict
from mkailin_assets.evaluation.contamination import LEAKS, Recheck, strangers
from mkailin_assets.evaluation.contestants import contestants
from mkailin_assets.evaluation.pubmedqa import NotPubMedQA, read_pubmedqa
from mkailin_assets.evaluation.rules import EvaluationRules
from mkailin_assets.evaluation.tables import BenchmarkResult
from mkailin_assets.tables import table
from mkailin_assets.training.checkpoints import CheckpointError, checkpoint_row, read_record
from mkailin_assets.training.tables import Checkpoint
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.generation import Generation
from mkailin_resources.models.extractive.agents import ConclusionAnswerer
from mkailin_resources.storage import ParquetTables, Storage

CORPUS = training_examples(test=12)


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


def test_the_real_benchmark_is_read(real_data: Path) -> None:
    benchmark = read_pubmedqa(real_data / "pubmedqa" / "pqal_dev500.json")
    assert (len(benchmark.items), benchmark.refused) == (500, {})


# The assets


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    corpus = trained_on(CORPUS.lazy())
    pretrained = tiny_checkpoint(
        folder / "pretrained", "small", name="pretrained", started_from="", data_fingerprint=corpus
    )
    before = read_record(pretrained).fingerprint
    finetuned = tiny_checkpoint(
        folder / "finetuned", "small", name="finetuned", started_from=before, data_fingerprint=corpus
    )
    return {"pretrained": pretrained, "finetuned": finetuned}


Materialized = tuple[dg.ExecuteInProcessResult, Path]


@pytest.fixture(scope="module")
def materialized(
    checkpoints: dict[str, Path], benchmark_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Materialized:
    root = tmp_path_factory.mktemp("storage")
    return materialize(root, CORPUS, checkpoints, str(benchmark_file)), root


def materialize(
    root: Path, corpus: pl.DataFrame, checkpoints: dict[str, Path], pubmedqa: str
) -> dg.ExecuteInProcessResult:
    """Evaluate the checkpoints on a corpus and a file of PubMedQA."""
    storage = Storage(root=str(root))

    @dg.asset(**table(TrainingExample))
    def training_corpus() -> pl.DataFrame:
        return corpus

    def trained(name: str) -> dg.AssetsDefinition:
        @dg.asset(**table(Checkpoint), name=name)
        def checkpoint() -> pl.DataFrame:
            folder = checkpoints[name.removesuffix("_checkpoint")]
            return checkpoint_row(str(folder), read_record(folder))

        return checkpoint

    return dg.materialize(
        [
            training_corpus,
            trained("pretrained_checkpoint"),
            trained("finetuned_checkpoint"),
            benchmark_answers,
            scored_benchmarks,
            checks.every_model_is_asked_the_same,
            checks.tokenizer_and_template_are_those_of_training,
            checks.the_models_are_of_one_lineage,
            checks.the_models_are_compared,
            checks.intervals_contain_their_scores,
            checks.no_measured_item_was_trained_on,
            checks.tuning_does_not_harm,
        ],
        resources={
            "storage": storage,
            "io_manager": ParquetTables(storage=storage),
            "benchmarks": BenchmarkFiles(pubmedqa=pubmedqa),
            "answer_model": ConclusionAnswerer(),
            "evaluation_rules": EvaluationRules(forms=("likelihood",)),
            "vllm_arguments": {},
            "generation": Generation(storage=storage),
        },
    )


def test_without_a_test_split_and_a_benchmark_the_report_says_that_nothing_was_measured(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    run = materialize(tmp_path, CORPUS.filter(pl.col("split") != "test"), checkpoints, "")
    assert run.output_for_node("scored_benchmarks", "benchmark_report").is_empty()
    text = (tmp_path / "reports" / "benchmark_report.md").read_text()
    assert "On held-out examples of the corpus: not measured. On PubMedQA: not measured." in text
    assert "- corpus: training_corpus has no test split: materialize more branches" in text
    failed = {check.check_name for check in run.get_asset_check_evaluations() if not check.passed}
    assert failed == {"the_models_are_compared"}


def test_the_report_compares_the_models_and_says_how_weak_they_are(materialized: Materialized) -> None:
    run, root = materialized
    results = BenchmarkResult.validate(run.output_for_node("scored_benchmarks", "benchmark_report"))
    assert {"base", "pretrained", "finetuned", "majority", "random"} <= set(results["model"])
    assert {"corpus_decision", "corpus_answer", "corpus_text"} <= set(results["task"])
    text = (root / "reports" / "benchmark_report.md").read_text()
    assert SMALL in text
    assert text.index("Did the corpus help?") < text.index("Read this first")
    assert (root / "reports" / "benchmark_comparisons.csv").exists()
    [made] = run.asset_materializations_for_node("benchmark_answers")
    # The two invented checkpoints have one fingerprint: what one was asked, the other is not asked.
    assert made.metadata["tasks_asked_before"].value == made.metadata["tasks_asked_now"].value / 2 == 5


def test_an_item_that_was_trained_on_is_told_at_the_top_and_fails_its_check(
    materialized: Materialized, benchmark_file: Path
) -> None:
    run, root = materialized
    # The invented corpus asks what the invented benchmark asks.
    assert "CONTAMINATED" in (root / "reports" / "benchmark_report.md").read_text()[:100]
    failed = {check.check_name for check in run.get_asset_check_evaluations() if not check.passed}
    assert "no_measured_item_was_trained_on" in failed
    assert failed <= {"no_measured_item_was_trained_on", "tuning_does_not_harm"}


def test_a_model_that_was_not_asked_an_item_fails_its_check(materialized: Materialized) -> None:
    answers = materialized[0].output_for_node("benchmark_answers")
    assert checks.every_model_is_asked_the_same(answers).passed
    missing = answers.filter((pl.col("model") != "base") | (pl.col("item") != answers["item"][0]))
    assert not checks.every_model_is_asked_the_same(missing).passed


def test_models_of_another_corpus_or_of_no_one_lineage_are_told_and_fail_their_check(
    materialized: Materialized, checkpoints: dict[str, Path]
) -> None:
    answers = materialized[0].output_for_node("benchmark_answers")
    pretrained, finetuned = (
        checkpoint_row("somewhere", read_record(folder)) for folder in checkpoints.values()
    )
    check = checks.the_models_are_of_one_lineage
    assert check(answers, CORPUS.lazy(), pretrained, finetuned).passed
    before = check(answers, CORPUS.slice(1).lazy(), pretrained, finetuned)
    assert not before.passed
    assert "pretrained_checkpoint was trained on another training_corpus" in (before.description or "")
    elsewhere = finetuned.with_columns(started_from=pl.lit("another"))
    told = strangers(CORPUS.lazy(), pl.concat([pretrained, elsewhere]))
    assert told == (
        "finetuned_checkpoint started from another checkpoint than the one before it here: materialize it "
        "again",
    )
    top = contamination_verdict(Recheck(pl.DataFrame(schema=LEAKS), 30, 7, told))
    assert top.startswith("**NOT OF ONE LINEAGE: finetuned_checkpoint started from another checkpoint")
    assert "No contamination found" in top


def test_an_altered_checkpoint_is_not_asked(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(checkpoints["pretrained"], tmp_path / "copy")
    weights = copy / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(CheckpointError, match=r"model.safetensors: is missing, or not as it was"):
        contestants([copy])


def test_another_template_than_that_of_training_fails_its_check(
    materialized: Materialized, checkpoints: dict[str, Path]
) -> None:
    answers = materialized[0].output_for_node("benchmark_answers")
    rows = [checkpoint_row("somewhere", read_record(folder)) for folder in checkpoints.values()]
    assert checks.tokenizer_and_template_are_those_of_training(answers, *rows).passed
    changed = answers.with_columns(tokenizer_sha256=pl.lit("0" * 64))
    assert not checks.tokenizer_and_template_are_those_of_training(changed, *rows).passed


@pytest.fixture
def results(materialized: Materialized) -> pl.DataFrame:
    return materialized[0].output_for_node("scored_benchmarks", "benchmark_report")


def test_a_model_that_is_missing_fails_its_check(results: pl.DataFrame) -> None:
    assert checks.the_models_are_compared(results).passed
    result = checks.the_models_are_compared(results.filter(pl.col("model") != "base"))
    assert not result.passed
    assert "base on" in result.description


def test_a_score_outside_its_interval_fails_its_check(results: pl.DataFrame) -> None:
    assert checks.intervals_contain_their_scores(results).passed
    assert not checks.intervals_contain_their_scores(results.with_columns(low=pl.lit(9.0))).passed


def test_a_model_that_training_made_worse_is_warned_of(materialized: Materialized) -> None:
    compared = materialized[0].output_for_node("scored_benchmarks", "benchmark_comparisons")
    worse = compared.with_columns(better=pl.lit(False))
    result = checks.tuning_does_not_harm(worse)
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN
    assert checks.tuning_does_not_harm(compared.with_columns(better=pl.lit(True))).passed
