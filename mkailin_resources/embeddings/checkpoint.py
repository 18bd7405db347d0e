"""Encoders as checkpoint folders: `encoder.json` says what it is, weights that are ours lie beside it."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pydantic import BaseModel, ValidationError

from mkailin_resources.embeddings.corpus import CorpusEncoder
from mkailin_resources.embeddings.interface import Encoder, EncoderError, EncoderSettings, Pooling
from mkailin_resources.embeddings.sentence import SentenceEncoder
from mkailin_resources.storage import Storage

_RECORD = "encoder.json"
_MODEL = "model"


class EncoderRecord(BaseModel):
    """What an encoder is: learnt from the corpus, a named transformer, or one that was tuned here."""

    kind: Literal["corpus", "named", "tuned"]
    name: str
    query_name: str = ""
    pooling: Pooling = ""


def named_encoder(settings: EncoderSettings) -> tuple[SentenceEncoder, EncoderRecord]:
    """The transformer that settings name; raises `EncoderError`."""
    encoder = SentenceEncoder.load(settings.name, settings.query_name, settings.pooling)
    return encoder, EncoderRecord(
        kind="named", name=settings.name, query_name=settings.query_name, pooling=settings.pooling
    )


def publish_encoder(
    encoder: CorpusEncoder | SentenceEncoder, record: EncoderRecord, storage: Storage, *files: Path
) -> str:
    """Keep an encoder under `encoders/<fingerprint>-<hash of record>/`; the folder's uri.

    `files` about how it was made lie beside it. What is there already is kept, unless it is damaged.
    """
    written = record.model_dump_json(indent=2)
    name = f"{encoder.fingerprint}-{hashlib.blake2b(written.encode(), digest_size=4).hexdigest()}"
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if isinstance(encoder, CorpusEncoder):
            encoder.save(folder)
        elif record.kind == "tuned":
            encoder.save(folder / _MODEL)
        (folder / _RECORD).write_text(written)
        for file in files:
            (folder / file.name).write_bytes(file.read_bytes())
        uri = storage.publish_folder(folder, "encoders", name)
        try:
            open_encoder(uri, encoder.fingerprint, storage)
        except EncoderError:
            storage.path("encoders", name).rmdir(recursive=True)
            storage.publish_folder(folder, "encoders", name)
    return uri


def open_encoder(uri: str, fingerprint: str, storage: Storage) -> Encoder:
    """The encoder of a checkpoint folder; `EncoderError` if it is damaged or no longer the same."""
    folder = storage.local_folder(uri)
    try:
        record = EncoderRecord.model_validate_json((folder / _RECORD).read_text())
    except (OSError, ValidationError) as error:
        raise EncoderError(
            f"opening the encoder {uri}: {error}; materialize retriever_checkpoint again"
        ) from error
    encoder: Encoder
    match record.kind:
        case "corpus":
            encoder = CorpusEncoder.load(folder)
        case "named":
            encoder = SentenceEncoder.load(record.name, record.query_name, record.pooling)
        case "tuned":
            try:
                encoder = SentenceEncoder.load(str(folder / _MODEL))
            except EncoderError as error:
                raise EncoderError(
                    f"opening the tuned encoder {uri}: {error.__cause__ or error}; materialize "
                    "retriever_checkpoint again"
                ) from error
    if encoder.fingerprint != fingerprint:
        raise EncoderError(
            f"encoder {record.name!r} is now {encoder.fingerprint}, the checkpoint is {fingerprint}: its "
            "weights have changed; materialize retriever_checkpoint and context_index again"
        )
    return encoder
