"""The encoder of retrieval as a checkpoint: learnt from the corpus, named, or named and tuned on it."""

import polars as pl

from mkailin_assets.retrieval.tables import RetrieverCheckpoint
from mkailin_assets.retrieval.update import PubmedFiles, one_row, sample_texts
from mkailin_resources.embeddings.checkpoint import EncoderRecord, named_encoder, publish_encoder
from mkailin_resources.embeddings.corpus import CorpusEncoder
from mkailin_resources.embeddings.interface import LEARNT, EncoderSettings
from mkailin_resources.storage import Storage


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
    return one_row(
        RetrieverCheckpoint,
        encoder=LEARNT,
        uri=publish_encoder(encoder, record, storage),
        fingerprint=encoder.fingerprint,
        dimension=encoder.dimension,
        trained_on=len(texts),
    )


def named_checkpoint(settings: EncoderSettings, storage: Storage) -> pl.DataFrame:
    """A named transformer as a RetrieverCheckpoint row; raises `EncoderError`."""
    encoder, record = named_encoder(settings)
    return one_row(
        RetrieverCheckpoint,
        encoder=" and ".join(filter(None, (settings.name, settings.query_name))),
        uri=publish_encoder(encoder, record, storage),
        fingerprint=encoder.fingerprint,
        dimension=encoder.dimension,
        trained_on=0,
    )
