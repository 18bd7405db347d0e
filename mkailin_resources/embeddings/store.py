"""What encoders made is kept by the hash of the text, so that no text is embedded twice by one encoder.

A LanceDB database for each encoder, `embeddings/<encoder fingerprint>/`. It may be deleted at any time:
what is needed is then embedded again. Numbers have 16 bits: they take half the disk, and cosines differ by
less than 0.001.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mkailin_resources.embeddings.interface import Encoder, EncoderError
from mkailin_resources.lance import is_conflict, rows_by_digest
from mkailin_resources.storage import Storage

if TYPE_CHECKING:
    from lancedb.table import Table

NOT_FINITE = "its vector has numbers that are not finite"
_TABLE = "vectors"
_DIGEST_BYTES = 16
# A look-up takes seconds; each version lists all fragments, and so many are merged at a time.
_KEEP_VERSIONS = timedelta(hours=1)
_ADDS_PER_TIDY, _SMALL_FRAGMENTS = 100, 20
# Look-ups read the rows that no index covers one by one.
_ROWS_WITHOUT_INDEX = 50_000
# More than a rare text that overflows: then the encoder is at fault, and nothing it says can be trusted.
_MOST_FAULTS, _FEW = 0.5, 10


@dataclass(frozen=True)
class Embedded:
    """Vectors of texts, shape (texts, dimension), float32, of length 1 or zero; `computed` of them anew.

    `faults`: why a text, by its place, has the zero vector though it says something.
    """

    vectors: np.ndarray
    computed: int
    faults: dict[int, str]


class EmbeddingStore:
    """Vectors of documents by one encoder, kept under a storage root; `seconds` are those of the encoder."""

    def __init__(self, storage: Storage, encoder: Encoder) -> None:
        """Open it, or make it."""
        self._encoder, self._adds = encoder, 0
        self.seconds = 0.0
        # Of two that make a table at once the second would overwrite it.
        with storage.turn(f"embeddings-{encoder.fingerprint}"):
            self._table = _opened(str(storage.path("embeddings", encoder.fingerprint)), encoder.dimension)

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Vectors of documents, computed where they are not kept, and kept before this returns.

        Raises `EncoderError` where more than half of ten or more that are computed are not finite.
        """
        digests = [
            hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).digest()
            for text in texts
        ]
        kept = self._kept(digests)
        missing = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in kept}
        began = time.perf_counter()
        computed = self._encoder.encode_documents(list(missing.values())).astype(np.float16)
        self.seconds += time.perf_counter() - began
        sound = np.asarray(np.isfinite(computed).all(axis=1))
        if len(sound) >= _FEW and sound.mean() < 1 - _MOST_FAULTS:
            raise EncoderError(
                f"encoder {self._encoder.fingerprint}: {(~sound).sum()} of {len(sound)} vectors have numbers "
                "that are not finite: its weights are damaged, or too large for this precision; name another"
            )
        self._keep([digest for digest, good in zip(missing, sound, strict=True) if good], computed[sound])
        kept |= dict(zip(missing, computed, strict=True))
        vectors = np.zeros((len(texts), self._encoder.dimension), np.float32)
        faults = {}
        for place, digest in enumerate(digests):
            if np.isfinite(kept[digest]).all():
                vectors[place] = kept[digest]
            else:
                faults[place] = NOT_FINITE
        return Embedded(vectors, len(missing), faults)

    def tidy(self) -> None:
        """Compact and index what was added, once it is much, unless another run does: look-ups stay fast."""
        from lancedb.index import BTree

        # LanceDB 0.40 gives a dict, whatever its annotation says.
        facts = cast(dict[str, Any], self._table.stats())["fragment_stats"]
        if facts["num_small_fragments"] < _SMALL_FRAGMENTS:
            return
        try:
            self._table.optimize(cleanup_older_than=_KEEP_VERSIONS)
            if not self._table.list_indices() and self._table.count_rows() > _ROWS_WITHOUT_INDEX:
                self._table.create_index("text_hash", config=BTree())
        except RuntimeError as error:
            if not is_conflict(error):
                raise

    def _kept(self, digests: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        kept: dict[bytes, np.ndarray] = {}
        for frame in rows_by_digest(self._table, "text_hash", sorted(set(digests)), ["text_hash", "vector"]):
            vectors = frame["vector"].to_numpy().reshape(-1, self._encoder.dimension)
            kept |= dict(zip(frame["text_hash"], vectors, strict=True))
        return kept

    def _keep(self, digests: list[bytes], vectors: np.ndarray) -> None:
        import pyarrow as pa

        if not digests:
            return
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self._encoder.dimension)
        keys = pa.array(digests, pa.binary(_DIGEST_BYTES))
        self._table.add(pa.table([keys, values], schema=self._table.schema))
        self._adds += 1
        if self._adds % _ADDS_PER_TIDY == 0:
            self.tidy()


def _opened(folder: str, dimension: int) -> "Table":
    import lancedb
    import pyarrow as pa

    schema = pa.schema(
        [
            pa.field("text_hash", pa.binary(_DIGEST_BYTES), nullable=False),
            pa.field("vector", pa.list_(pa.float16(), dimension), nullable=False),
        ]
    )
    return lancedb.connect(folder).create_table(_TABLE, schema=schema, exist_ok=True)
