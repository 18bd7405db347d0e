"""The embedding store: no text is embedded twice, and what cannot be embedded stops nothing."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mkailin_resources.embeddings import store as store_module
from mkailin_resources.embeddings.interface import EncoderError
from mkailin_resources.embeddings.store import NOT_FINITE, EmbeddingStore
from mkailin_resources.storage import Storage


class Lengths:
    """An encoder that notes what it is asked, and fails on texts that say so."""

    dimension = 4

    def __init__(self, fingerprint: str = "lengths-1") -> None:
        self.fingerprint, self.asked = fingerprint, list[str]()

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        vectors = np.array([[len(text), 1, 2, 3] for text in texts], np.float32).reshape(-1, 4)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1)
        vectors[["overflow" in text for text in texts], 1] = np.nan
        return vectors

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        return self.encode_documents(texts)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(root=str(tmp_path))


def test_a_text_is_embedded_once_whoever_asks(storage: Storage) -> None:
    encoder = Lengths()
    first = EmbeddingStore(storage, encoder).embed(["one", "two words", "one"])
    assert encoder.asked == ["one", "two words"]
    again = EmbeddingStore(storage, encoder).embed(["two words", "another", "one"])
    assert encoder.asked == ["one", "two words", "another"]
    assert (first.computed, again.computed) == (2, 1)
    assert again.vectors[2].tobytes() == first.vectors[0].tobytes() == first.vectors[2].tobytes()


def test_vectors_are_the_encoders_within_a_thousandth(storage: Storage) -> None:
    texts = ["a" * length for length in range(1, 50)]
    made = EmbeddingStore(storage, Lengths()).embed(texts)
    assert made.vectors.dtype == np.float32
    np.testing.assert_allclose(made.vectors, Lengths().encode_documents(texts), atol=5e-4)


def test_another_encoder_has_vectors_of_its_own(storage: Storage) -> None:
    EmbeddingStore(storage, Lengths()).embed(["one"])
    other = Lengths("lengths-2")
    assert EmbeddingStore(storage, other).embed(["one"]).computed == 1


def test_a_text_whose_vector_is_not_finite_is_named_and_tried_again_the_next_time(storage: Storage) -> None:
    encoder = Lengths()
    store = EmbeddingStore(storage, encoder)
    made = store.embed(["good", "overflow", "also good"])
    assert made.faults == {1: NOT_FINITE}
    assert not made.vectors[1].any()
    assert made.vectors[[0, 2]].any(axis=1).all()
    store.embed(["overflow", "good"])
    assert encoder.asked[-1] == "overflow"


def test_an_encoder_that_fails_on_most_texts_is_refused(storage: Storage) -> None:
    texts = [f"overflow {number}" for number in range(8)] + ["good", "better"]
    with pytest.raises(EncoderError, match="8 of 10 vectors have numbers that are not finite"):
        EmbeddingStore(storage, Lengths()).embed(texts)


def test_no_texts_and_lone_surrogates_are_no_error(storage: Storage) -> None:
    store = EmbeddingStore(storage, Lengths())
    assert store.embed([]).vectors.shape == (0, 4)
    assert store.embed(["\ud800"]).computed == 1
    assert store.embed(["\ud800"]).computed == 0


def test_stores_that_add_and_tidy_at_once_lose_nothing(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_ROWS_WITHOUT_INDEX", 10)
    monkeypatch.setattr(store_module, "_SMALL_FRAGMENTS", 1)
    texts = [[f"text {run} {number}" for number in range(20)] for run in range(4)]

    def embed_and_tidy(some: list[str]) -> None:
        store = EmbeddingStore(storage, Lengths())
        store.embed(some)
        store.tidy()

    with ThreadPoolExecutor(4) as runs:
        list(runs.map(embed_and_tidy, texts))
    encoder = Lengths()
    assert EmbeddingStore(storage, encoder).embed([text for some in texts for text in some]).computed == 0
    assert encoder.asked == []
