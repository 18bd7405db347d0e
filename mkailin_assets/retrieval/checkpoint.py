"""The encoder of retrieval as a checkpoint: learnt from the corpus, named, or named and tuned on it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from pydantic import ValidationError

from mkailin_assets.retrieval.finetuning import (
    RetrieverTuning,
    TuningRecord,
    Verdict,
    check_enough,
    fine_tune,
    held_out_ranks,
    judge,
)
from mkailin_assets.retrieval.pairs import training_pairs
from mkailin_assets.retrieval.tables import RetrieverCheckpoint, RetrieverPair
from mkailin_assets.retrieval.update import PubmedFiles, one_row, records_of, sample, sample_texts
from mkailin_resources.embeddings.checkpoint import EncoderRecord, named_encoder, publish_encoder
from mkailin_resources.embeddings.corpus import CorpusEncoder
from mkailin_resources.embeddings.interface import LEARNT, EncoderError, EncoderSettings
from mkailin_resources.embeddings.sentence import SentenceEncoder
from mkailin_resources.storage import Storage

_PACKAGES = ("torch", "transformers", "sentence-transformers", "tokenizers")


@dataclass(frozen=True)
class Tuned:
    """A tuned encoder as a RetrieverCheckpoint row, how it came about, and the pairs with their reasons."""

    row: pl.DataFrame
    record: TuningRecord
    verdict: Verdict
    pairs: pl.DataFrame


def learnt_checkpoint(
    settings: EncoderSettings,
    current_citations: pl.DataFrame,
    pubmed_citations: PubmedFiles,
    storage: Storage,
) -> pl.DataFrame:
    """An encoder learnt from the citations as a RetrieverCheckpoint row; its weights are published."""
    texts = sample_texts(current_citations, pubmed_citations, settings.learn_from)
    encoder = CorpusEncoder.learn(texts)
    record = EncoderRecord(kind="corpus", name=LEARNT)
    return _row(LEARNT, publish_encoder(encoder, record, storage), encoder, trained_on=len(texts))


def named_checkpoint(settings: EncoderSettings, storage: Storage) -> pl.DataFrame:
    """A named transformer as a RetrieverCheckpoint row; raises `EncoderError`."""
    encoder, record = named_encoder(settings)
    name = " and ".join(filter(None, (settings.name, settings.query_name)))
    return _row(name, publish_encoder(encoder, record, storage), encoder, trained_on=0)


def tuned_checkpoint(
    settings: EncoderSettings,
    current_citations: pl.DataFrame,
    pubmed_citations: PubmedFiles,
    benchmark: pl.DataFrame,
    *,
    storage: Storage,
    log: Callable[[str], None],
) -> Tuned:
    """A named transformer, tuned on the corpus; the base stays current where tuning made it worse.

    `benchmark` is what `contamination` takes: its questions are not trained on. Both encoders are published,
    the tuned one with `training.json` and the pairs. A killed one goes on where it stopped. Raises
    `EncoderError`, `TooFewPairs` or `TrainingDiverged`.
    """
    tuning = _tuning(settings)
    base, base_record = named_encoder(settings)
    base_uri = publish_encoder(base, base_record, storage)
    citations = sample(current_citations, settings.learn_from)
    columns = ["pmid", "pubmed_file", "title", "abstract"]
    records = [frame.select(columns).collect() for frame in records_of(citations, pubmed_citations)]
    pairs = training_pairs(pl.concat(records), benchmark) if records else RetrieverPair.create_empty()
    check_enough(pairs)
    log(f"{pairs['reason'].null_count():,} of {pairs.height:,} pairs can be used")
    before = held_out_ranks(base, pairs, tuning)
    work = storage.scratch() / "retriever_tuning"
    with storage.turn(work.name):
        record, judged = fine_tune(base.documents, pairs, tuning, work, log)
        tuned = SentenceEncoder(base.documents)
        verdict = judge(before, held_out_ranks(tuned, pairs, tuning))
        notes = {
            "base_model": settings.name,
            **record.model_dump(),
            "verdict": verdict.model_dump(),
            "packages": {package: version(package) for package in _PACKAGES},
        }
        tuned_uri = _publish(tuned, settings.name, notes, judged, storage)
        shutil.rmtree(work)
    log(str(verdict))
    if verdict.tuned_is_current:
        made = _row(f"{settings.name} (tuned)", tuned_uri, tuned, trained_on=record.pairs)
    else:
        made = _row(settings.name, base_uri, base, trained_on=0)
    row = made.with_columns(
        base_uri=pl.lit(base_uri),
        base_fingerprint=pl.lit(base.fingerprint),
        tuned_uri=pl.lit(tuned_uri),
        held_out_pairs=pl.lit(verdict.pairs, pl.Int64),
        base_mrr=pl.lit(verdict.base.mrr_at_10),
        tuned_mrr=pl.lit(verdict.tuned.mrr_at_10),
    )
    return Tuned(row, record, verdict, judged)


def _tuning(settings: EncoderSettings) -> RetrieverTuning:
    try:
        return RetrieverTuning.model_validate(settings.tuning or {})
    except ValidationError as error:
        fault = error.errors()[0]
        raise EncoderError(
            f"settings of the encoder's tuning: {'.'.join(map(str, fault['loc']))}: {fault['msg']}; they are "
            f"{', '.join(RetrieverTuning.model_fields)}"
        ) from error


def _publish(
    tuned: SentenceEncoder, base: str, notes: dict[str, Any], pairs: pl.DataFrame, storage: Storage
) -> str:
    with TemporaryDirectory() as scratch:
        written, used = Path(scratch, "training.json"), Path(scratch, "pairs.parquet")
        written.write_text(json.dumps(notes, indent=2))
        pairs.write_parquet(used)
        return publish_encoder(tuned, EncoderRecord(kind="tuned", name=base), storage, written, used)


def _row(name: str, uri: str, encoder: CorpusEncoder | SentenceEncoder, trained_on: int) -> pl.DataFrame:
    return one_row(
        RetrieverCheckpoint,
        encoder=name,
        uri=uri,
        fingerprint=encoder.fingerprint,
        dimension=encoder.dimension,
        trained_on=trained_on,
    )
