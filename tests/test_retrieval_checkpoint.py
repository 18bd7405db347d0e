"""The tuned encoder as a checkpoint: what is published, what is current, and what a kill leaves."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import polars as pl
import pytest
from tiny_model import make_bert

from mkailin_assets.corpus.decontamination import benchmark_questions
from mkailin_assets.partitions import pubmed_files
from mkailin_assets.pubmed.citations import read_pubmed_file
from mkailin_assets.pubmed.tables import CurrentCitation
from mkailin_assets.retrieval import checkpoint as checkpoint_module
from mkailin_assets.retrieval.assets import retriever_checkpoint
from mkailin_assets.retrieval.checks import encoder_loads_and_encodes, tuning_does_not_harm
from mkailin_assets.retrieval.finetuning import TooFewPairs, held_out_ranks
from mkailin_assets.retrieval.pairs import is_held_out
from mkailin_assets.retrieval.tables import RetrieverCheckpoint, RetrieverPair
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.embeddings.checkpoint import open_encoder
from mkailin_resources.embeddings.interface import EncoderError, EncoderSettings
from mkailin_resources.sample import NLM_FOLDER, PUBMEDQA_FILE
from mkailin_resources.storage import ParquetTables, Storage

FILES = ("pubmed26n0001", "pubmed26n0002")
TINY = {"max_steps": 4, "checkpoint_steps": 2, "batch_size": 8, "negatives": 1, "consistency_rank": 400}
TINY |= {"nearest_rank": 0, "margin": 0, "max_length": 32}


@pytest.fixture(scope="module")
def records() -> pl.DataFrame:
    """The records of the sample's baseline."""
    frames = []
    for name in FILES:
        with Path(NLM_FOLDER, "pubmed", "baseline", f"{name}.xml.gz").open("rb") as file:
            frames += read_pubmed_file(file, name)
    return pl.concat(frames)


@pytest.fixture(scope="module")
def files(records: pl.DataFrame) -> dict[str, pl.LazyFrame]:
    return {name: records.lazy().filter(pubmed_file=name) for name in FILES}


@pytest.fixture(scope="module")
def citations(records: pl.DataFrame) -> pl.DataFrame:
    """Those held out, and some to train on, all of them current."""
    held_out = pl.col("pmid").map_elements(is_held_out, return_dtype=pl.Boolean)
    some = held_out | ((pl.col("pmid") % 5) == 0)
    made = (
        records.filter(some)
        .filter(record="citation")
        .select(
            "pmid",
            "pubmed_file",
            "position",
            "content_hash",
            state=pl.lit("current"),
            home_branch=pl.lit("C04"),
            has_abstract=pl.col("abstract").list.len() > 0,
        )
    )
    return pl.concat([CurrentCitation.create_empty(), made], how="diagonal")


@pytest.fixture(scope="module")
def bert(records: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised BERT that knows the words of the sample."""
    said = " ".join(records["title"].drop_nulls()).lower()
    words = sorted(set(re.findall(r"[a-z]+|\S", said)))
    return make_bert(tmp_path_factory.mktemp("bert"), words, window=64)


@pytest.fixture(scope="module")
def tuned(
    files: dict[str, pl.LazyFrame],
    citations: pl.DataFrame,
    bert: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> SimpleNamespace:
    """The asset, materialized through Dagster with its checks."""
    storage = Storage(root=str(tmp_path_factory.mktemp("tuned")))
    storage.write_table(citations, "current_citations")
    for name, rows in files.items():
        storage.write_table(rows.collect(), "pubmed_citations", name)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("pubmed_files", list(FILES))
        result = dg.materialize(
            [
                dg.AssetSpec("current_citations"),
                dg.AssetSpec("pubmed_citations", partitions_def=pubmed_files),
                retriever_checkpoint,
                encoder_loads_and_encodes,
                tuning_does_not_harm,
            ],
            instance=instance,
            resources={
                "io_manager": ParquetTables(storage=storage),
                "storage": storage,
                "encoder": EncoderSettings(name=str(bert), tuning=TINY),
                "benchmarks": BenchmarkFiles(pubmedqa=str(PUBMEDQA_FILE)),
            },
        )
    row = storage.read_table("retriever_checkpoint")
    assert row is not None
    return SimpleNamespace(result=result, storage=storage, row=row, made=row.row(0, named=True))


def test_the_better_one_of_tuned_and_base_is_current_and_both_are_published(tuned: SimpleNamespace) -> None:
    made = tuned.made
    RetrieverCheckpoint.validate(tuned.row)
    better = made["tuned_mrr"] >= made["base_mrr"]
    assert made["uri"] == (made["tuned_uri"] if better else made["base_uri"])
    assert made["encoder"].endswith(" (tuned)") == better
    for uri in (made["base_uri"], made["tuned_uri"]):
        fingerprint = Path(uri).name.rpartition("-")[0]
        assert open_encoder(uri, fingerprint, tuned.storage).dimension == made["dimension"]
    assert made["fingerprint"] in made["uri"]
    checks = {check.check_name: check for check in tuned.result.get_asset_check_evaluations()}
    assert checks["encoder_loads_and_encodes"].passed
    assert checks["tuning_does_not_harm"].passed == better
    assert f"{made['held_out_pairs']} held-out pairs" in checks["tuning_does_not_harm"].description


def test_the_folder_of_the_tuned_encoder_says_how_it_was_made(tuned: SimpleNamespace, bert: Path) -> None:
    folder = Path(tuned.made["tuned_uri"])
    training = json.loads((folder / "training.json").read_text())
    assert training["settings"]["max_steps"] == training["course"]["steps"] == 4
    assert training["base_model"] == str(bert)
    assert training["verdict"]["tuned"]["mrr_at_10"] == tuned.made["tuned_mrr"]
    assert set(training["packages"]) == {"torch", "transformers", "sentence-transformers", "tokenizers"}
    pairs = RetrieverPair.validate(pl.read_parquet(folder / "pairs.parquet"))
    assert pairs["reason"].null_count() > 40
    assert pairs["reason"].drop_nulls().len() > 0, "what is left out has its reason"
    assert not [path for path in folder.rglob("*") if path.suffix in {".bin", ".pt", ".md"}]


def test_what_was_trained_is_not_left_in_the_scratch_folder(tuned: SimpleNamespace) -> None:
    assert not (tuned.storage.scratch() / "retriever_tuning").exists()


def test_the_materialization_shows_verdict_loss_and_pairs(tuned: SimpleNamespace) -> None:
    metadata = tuned.result.asset_materializations_for_node("retriever_checkpoint")[0].metadata
    assert "held-out pairs" in metadata["verdict"].value
    assert "data:image/png;base64" in metadata["loss"].value
    assert metadata["steps"].value == 4
    assert "| statement |" in metadata["examples"].value or "| conclusion |" in metadata["examples"].value


def tune(
    files: dict[str, pl.LazyFrame], citations: pl.DataFrame, bert: Path, folder: Path, lines: list[str]
) -> checkpoint_module.Tuned:
    return checkpoint_module.tuned_checkpoint(
        EncoderSettings(name=str(bert), tuning=TINY),
        citations,
        files,
        benchmark_questions([]),
        storage=Storage(root=str(folder)),
        log=lines.append,
    )


def test_the_base_stays_current_where_tuning_made_it_worse(
    files: dict[str, pl.LazyFrame],
    citations: pl.DataFrame,
    bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ranks, texts = iter((1, 2)), []

    def found(*given: object) -> pl.DataFrame:
        measured = held_out_ranks(*given)  # type: ignore[arg-type]
        texts.append(measured["texts"].to_list())
        return measured.with_columns(rank=pl.lit(next(ranks)))

    monkeypatch.setattr(checkpoint_module, "held_out_ranks", found)
    made = tune(files, citations, bert, tmp_path, []).row.row(0, named=True)
    assert texts[0] == texts[1], "both are asked among the same texts"
    assert (made["base_mrr"], made["tuned_mrr"]) == (1, 0.5)
    assert made["uri"] == made["base_uri"] != made["tuned_uri"]
    assert (made["encoder"], made["trained_on"]) == (str(bert), 0)
    assert open_encoder(made["uri"], made["fingerprint"], Storage(root=str(tmp_path)))
    check = tuning_does_not_harm(pl.DataFrame([made]))
    assert not check.passed
    assert "the base encoder is current" in str(check.description)


def test_a_killed_materialization_goes_on_from_its_checkpoint(
    files: dict[str, pl.LazyFrame],
    citations: pl.DataFrame,
    bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "judge", killed)
        with pytest.raises(KeyboardInterrupt):
            tune(files, citations, bert, tmp_path, [])
    lines: list[str] = []
    done = tune(files, citations, bert, tmp_path, lines)
    assert done.record.course.resumed_at == 4
    assert not [line for line in lines if line.startswith("step ")], "no step is trained again"


def test_a_corpus_of_too_few_citations_says_what_to_do(
    files: dict[str, pl.LazyFrame], citations: pl.DataFrame, bert: Path, tmp_path: Path
) -> None:
    for some in (citations.head(10), citations.clear()):
        with pytest.raises(TooFewPairs, match="materialize more PubMed files first, or switch tuning off"):
            tune(files, some, bert, tmp_path, [])


def test_a_setting_that_is_none_is_named_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"tuning: steps: .*; they are seed, consistency_rank"):
        checkpoint_module.tuned_checkpoint(
            EncoderSettings(name="nowhere", tuning={"steps": 5}),
            CurrentCitation.create_empty(),
            {},
            benchmark_questions([]),
            storage=Storage(root=str(tmp_path)),
            log=lambda _: None,
        )
