"""Texts as vectors: an encoder learnt from the corpus itself, or a sentence-transformers model.

Vectors are float32, of length 1, so that a dot product is a cosine; a text that says nothing to an
encoder (empty, out of vocabulary) is the zero vector, which is similar to nothing.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import dagster as dg
import numpy as np

from mkailin_resources.storage import Storage

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

LEARNT = "corpus"
_WEIGHTS = "encoder.safetensors"
_VOCABULARY = "vocabulary.json"
_MAX_DIMENSION = 256
_MAX_TERMS = 100_000
_CHUNKS_PER_BATCH = 64


class EncoderError(RuntimeError):
    """An encoder cannot be learnt or loaded; the message says what to do."""


class Encoder(Protocol):
    """Turns texts into vectors. `fingerprint` names what decides them and may name a folder."""

    fingerprint: str
    dimension: int

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of shape (texts, dimension), float32, each of length 1 or zero."""
        ...


class EncoderSettings(dg.ConfigurableResource):
    """Which encoder retrieval uses: `corpus`, or the name or folder of a sentence-transformers model."""

    name: str = LEARNT
    learn_from: int = 200_000
    """Citations that the corpus encoder is learnt from at most, a seeded sample of all."""


def open_encoder(name: str, uri: str | None, fingerprint: str, storage: Storage) -> Encoder:
    """The encoder of a RetrieverCheckpoint row; `EncoderError` if it is no longer the same."""
    encoder: Encoder = (
        CorpusEncoder.load(storage.local_folder(uri)) if uri else SentenceTransformersEncoder(name)
    )
    if encoder.fingerprint != fingerprint:
        raise EncoderError(
            f"encoder {name!r} is now {encoder.fingerprint}, the checkpoint is {fingerprint}: its weights "
            "have changed; materialize retriever_checkpoint and context_index again"
        )
    return encoder


class CorpusEncoder:
    """TF-IDF of words, reduced by truncated SVD (latent semantic analysis).

    Deerwester et al. 1990. Needs no weights from elsewhere; reads the whole of a text. Words alone, since
    word pairs found fewer abstracts by their titles (70% first, words 73%; 2,354 real citations).
    """

    def __init__(self, vocabulary: dict[str, int], idf: np.ndarray, components: np.ndarray) -> None:
        """`idf` of shape (terms,), `components` of shape (dimension, terms), both float32."""
        self.dimension = components.shape[0]
        self._vocabulary, self._idf, self._components = vocabulary, idf, components
        self._vectorizer = _vectorizer(vocabulary=vocabulary)
        self._vectorizer.idf_ = idf
        digest = hashlib.blake2b(json.dumps(vocabulary, sort_keys=True).encode(), digest_size=8)
        digest.update(idf.tobytes())
        digest.update(components.tobytes())
        self.fingerprint = f"{LEARNT}-{digest.hexdigest()}"

    @classmethod
    def learn(cls, texts: Sequence[str]) -> "CorpusEncoder":
        """Fit on texts; the same texts in the same order give the same encoder.

        Terms in fewer than one text in 10,000 are left out; the dimension is at most 256 and at most the
        rank of the corpus. Raises `EncoderError` if no text has a word.
        """
        from sklearn.utils.extmath import randomized_svd

        min_df = max(2, len(texts) // 10_000) if len(texts) >= 50 else 1
        vectorizer = _vectorizer(min_df=min_df, max_features=_MAX_TERMS)
        try:
            matrix = vectorizer.fit_transform(texts)
        except ValueError as error:
            raise EncoderError(
                f"learning an encoder from {len(texts)} texts: {error}; materialize pubmed_citations and "
                "current_citations of files that hold citations with abstracts first"
            ) from error
        _, strengths, directions = randomized_svd(
            matrix, min(_MAX_DIMENSION, *matrix.shape), n_iter=5, random_state=0
        )
        rank = int((strengths > 1e-4 * strengths[0]).sum())
        vocabulary = {term: int(place) for term, place in sorted(vectorizer.vocabulary_.items())}
        components = np.ascontiguousarray(directions[:rank], dtype=np.float32)
        return cls(vocabulary, vectorizer.idf_.astype(np.float32), components)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of shape (texts, dimension); each depends on its own text alone."""
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        return _of_length_one(self._vectorizer.transform(texts) @ self._components.T)

    def save(self, folder: Path) -> None:
        """Write weights and vocabulary into an existing folder."""
        from safetensors.numpy import save_file

        save_file({"idf": self._idf, "components": self._components}, str(folder / _WEIGHTS))
        (folder / _VOCABULARY).write_text(json.dumps(self._vocabulary, ensure_ascii=False))

    @classmethod
    def load(cls, folder: Path) -> "CorpusEncoder":
        """What `save` wrote, with bit-identical vectors; `EncoderError` if it is damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            weights = load_file(str(folder / _WEIGHTS))
            vocabulary = json.loads((folder / _VOCABULARY).read_text())
            return cls(vocabulary, weights["idf"], weights["components"])
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise EncoderError(
                f"loading the encoder in {folder}: {error}; materialize retriever_checkpoint and "
                "context_index again"
            ) from error


def _vectorizer(**options: Any) -> "TfidfVectorizer":
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        sublinear_tf=True,
        stop_words="english",
        strip_accents="unicode",
        dtype=np.float32,
        **options,
    )


class SentenceTransformersEncoder:
    """A sentence-transformers model, by the name on its hub or a local folder.

    A text longer than the model's window is read in windows, and its vector is their mean, weighted by
    tokens: nothing of it is cut off.
    """

    def __init__(self, name_or_folder: str) -> None:
        """Load it; raises `EncoderError` when the package or the model is missing."""
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise EncoderError(
                f"encoder {name_or_folder!r} needs sentence-transformers: pip install 'mkailin[encoder]', "
                f"or set the encoder to {LEARNT!r}"
            ) from error
        try:
            self._model = SentenceTransformer(name_or_folder)
        except (OSError, ValueError) as error:
            raise EncoderError(
                f"loading encoder {name_or_folder!r}: {error}; give a sentence-transformers name that can be "
                f"reached from here, the folder of one, or {LEARNT!r}"
            ) from error
        self._window = min(self._model.max_seq_length or 512, self._model.tokenizer.model_max_length)
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        self.fingerprint = f"st-{self._digest()}"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of shape (texts, dimension)."""
        said = [place for place, text in enumerate(texts) if text.strip()]
        sums = np.zeros((len(texts), self.dimension), np.float32)
        for start in range(0, len(said), _CHUNKS_PER_BATCH):
            places = said[start : start + _CHUNKS_PER_BATCH]
            owners, weights, vectors = self._windows([texts[place] for place in places])
            np.add.at(sums, np.array(places)[owners], vectors * weights[:, None])
        return _of_length_one(sums)

    def _windows(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All windows of the texts: whose each is, its tokens, its vector."""
        import torch

        tokenizer = self._model.tokenizer
        encoded = tokenizer(
            texts, truncation=True, max_length=self._window, return_overflowing_tokens=True, verbose=False
        )
        owners = np.array(encoded.pop("overflow_to_sample_mapping"))
        vectors = []
        for start in range(0, len(owners), _CHUNKS_PER_BATCH):
            batch = {key: rows[start : start + _CHUNKS_PER_BATCH] for key, rows in encoded.items()}
            features = tokenizer.pad(batch, return_tensors="pt").to(self._model.device)
            with torch.inference_mode():
                vectors.append(self._model(dict(features))["sentence_embedding"].float().cpu().numpy())
        weights = np.array([len(ids) for ids in encoded["input_ids"]], np.float32)
        return owners, weights, np.concatenate(vectors)

    def _digest(self) -> str:
        """Hash of modules, tokenizer and weights, wherever they came from."""
        import torch

        digest = hashlib.blake2b(f"{self._model}{self._window}".encode(), digest_size=8)
        digest.update(self._model.tokenizer.backend_tokenizer.to_str().encode())
        for key, tensor in sorted(self._model.state_dict().items()):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _of_length_one(vectors: np.ndarray) -> np.ndarray:
    """Rows divided by their length; rows of zeros, and of rounding errors only, become zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(lengths > 1e-6, vectors / np.maximum(lengths, 1e-6), 0).astype(np.float32)
