"""The ablations in Dagster: corpora, models of one base and budget, and the report on them."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from ablation_tables import CORPUS_RULES, QUALITY_RULES, answer, current, lineage
from asking import Writer

from mkailin_assets.ablation import assets, checks
from mkailin_assets.ablation.ablations import ALL_AGENTS
from mkailin_assets.ablation.models import on_base_of
from mkailin_assets.ablation.tables import AblatedCheckpoint, AblationResult
from mkailin_assets.evaluation.rules import EvaluationRules
from mkailin_assets.mesh.tables import MeshDescriptor, MeshInformationContent
from mkailin_assets.partitions import mesh_branches
from mkailin_assets.preferences.cold_start import ColdStartRules
from mkailin_assets.retrieval.tables import ContextIndex
from mkailin_assets.training.checkpoints import OtherBase, checkpoint_row
from mkailin_assets.training.job import train
from mkailin_assets.training.recipes import recipe_of
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.compute import Compute
from mkailin_resources.generation import Generation
from mkailin_resources.index import ContextStore
from mkailin_resources.storage import ParquetTables, Storage

STAGE = {"max_length": 128, "max_steps": 3, "batch_size": 2, "learning_rate": 1e-2, "warmup_steps": 1}
RECIPE = recipe_of({"name": "embedded", "vocabulary": 400, "pretraining": STAGE, "finetuning": STAGE})
MADE = (ALL_AGENTS, "no_dpo", "no_retrieval")
ASSETS = [assets.ablated_corpus, assets.ablated_checkpoint, assets.ablation_report]


@dataclass(frozen=True)
class Run:
    """Tables of the ablations, the report, and what the checks said."""

    root: Path
    passed: dict[str, bool]

    def table(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.root / "tables" / name)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("ablations")
    storage = Storage(root=str(root))
    upstream = publish_upstream(storage)
    resources = {
        "io_manager": ParquetTables(storage=storage),
        "storage": storage,
        "generation": Generation(storage=storage),
        "context_store": ContextStore(storage=storage, retriever="lexical"),
        "benchmarks": BenchmarkFiles(pubmedqa=str(pubmedqa(root)), retrieval="", others=[]),
        "answer_model": Writer(answer),
        "entailment_model": None,
        "mesh_rules": ColdStartRules(),
        "quality_rules": QUALITY_RULES,
        "corpus_rules": CORPUS_RULES,
        "evaluation_rules": EvaluationRules(),
        "vllm_arguments": {},
        "recipe": RECIPE,
        "compute": Compute(),
    }
    of_the_ablations = dg.load_asset_checks_from_modules([checks])
    everything = [*upstream, *ASSETS, *of_the_ablations]
    passed: dict[str, bool] = {}
    with dg.DagsterInstance.ephemeral(str(root)) as instance:
        for partition in (*MADE, None):
            chosen = ASSETS[:2] if partition else ASSETS[2:]
            result = dg.materialize(
                everything,
                instance=instance,
                resources=resources,
                partition_key=partition,
                selection=dg.AssetSelection.assets(*chosen),
            )
            passed |= {
                f"{evaluation.check_name} {partition or ''}": evaluation.passed
                for evaluation in result.get_asset_check_evaluations()
            }
    return Run(root, passed)


def publish_upstream(storage: Storage) -> list[dg.AssetSpec]:
    """The tables that the ablations read, a pre-trained checkpoint among them; their assets."""
    made = lineage()
    specs = []
    for field in fields(made)[:-1]:
        for branch, rows in getattr(made, field.name).items():
            storage.write_table(rows.collect(), field.name, branch)
        specs.append(dg.AssetSpec(field.name, partitions_def=mesh_branches))
    folder, work = storage.scratch() / "pretrained", storage.scratch() / "work"
    folder.mkdir()
    record = train("pretrained", made.training_corpus, RECIPE, None, folder, work, Compute(), _quiet)
    tables = {
        "training_corpus": made.training_corpus.collect(),
        "current_citations": current(),
        "context_index": ContextIndex.create_empty(),
        "mesh_descriptors": MeshDescriptor.create_empty(),
        "mesh_information_content": MeshInformationContent.create_empty(),
        "pretrained_checkpoint": checkpoint_row(str(folder), record),
    }
    for name, table in tables.items():
        storage.write_table(table, name)
    return [*specs, *map(dg.AssetSpec, tables)]


def _quiet(line: str) -> None:
    pass


def pubmedqa(folder: Path) -> Path:
    item = {
        "QUESTION": "Does iron make people happier?",
        "CONTEXTS": ["We gave iron."],
        "LABELS": ["METHODS"],
        "MESHES": ["Iron"],
        "YEAR": "2010",
        "reasoning_required_pred": "no",
        "reasoning_free_pred": "no",
        "final_decision": "no",
        "LONG_ANSWER": "It did not.",
    }
    path = folder / "pqa.json"
    path.write_text(json.dumps({str(pmid): item for pmid in (7777, 8888)}))
    return path


def test_the_same_data_are_trained_once_and_others_on_the_same_base_and_budget(run: Run) -> None:
    made = AblatedCheckpoint.validate(run.table("ablated_checkpoint"))
    assert sorted(made["ablation"]) == sorted(MADE)
    by_name = {row["ablation"]: row for row in made.to_dicts()}
    whole, without = by_name[ALL_AGENTS], by_name["no_retrieval"]
    assert by_name["no_dpo"]["uri"] == whole["uri"]
    assert len(list((run.root / "checkpoints" / "ablated").iterdir())) == 4
    records = [json.loads((Path(row["uri"]) / "training.json").read_text()) for row in (whole, without)]
    assert records[0]["tokenizer_sha256"] == records[1]["tokenizer_sha256"]
    assert records[0]["fingerprint"] != records[1]["fingerprint"]
    for name in ("base_model", "pretraining_budget", "finetuning_budget", "pretraining_steps"):
        assert whole[name] == without[name]
    assert "random weights" in whole["base_model"]
    assert whole["pretraining_budget"] == 3 * 2 * 128


def test_the_report_compares_what_is_there_and_names_what_is_not(run: Run) -> None:
    results = AblationResult.validate(run.table("ablation_report.parquet"))
    assert set(results["ablation"]) == set(MADE)
    assert {"corpus_text", "corpus_answer", "corpus_decision"} < set(results["task"])
    compared = results.drop_nulls("difference")["ablation"].unique().to_list()
    assert compared == ["no_retrieval"]
    assert results["form"].unique().to_list() == ["likelihood"], "the first of the forms, and no other"
    text = (run.root / "reports" / "ablation_report.md").read_text()
    assert "no dpo: the same data, and so the model of all agents" in text
    assert "one generator: not made" in text


def test_the_checks_pass_and_warn_of_what_is_missing(run: Run) -> None:
    assert len(run.passed) == 6 * len(MADE) + 2
    failed = {name for name, passed in run.passed.items() if not passed}
    assert failed - {"budgets_are_equal "} == {"no_ablation_is_missing "}


def test_nothing_is_left_of_the_pairs_that_a_corpus_was_made_from(run: Run) -> None:
    left = [path.name for path in (run.root / ".scratch").iterdir()]
    assert not [name for name in left if name.startswith("ablated_corpus")]


def test_a_small_llama_is_not_begun_from_a_checkpoint_that_began_with_another_base(
    run: Run, tmp_path: Path
) -> None:
    record = json.loads((run.root / ".scratch" / "pretrained" / "training.json").read_text())
    (tmp_path / "training.json").write_text(
        json.dumps(record | {"base": "somebody/model", "revision": "0" * 40})
    )
    with pytest.raises(OtherBase, match="and pretrained_checkpoint was trained from somebody/model"):
        on_base_of(RECIPE, tmp_path)
    named = RECIPE.model_copy(update={"base": "somebody/model"})
    assert on_base_of(named, tmp_path) == named
