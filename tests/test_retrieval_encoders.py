"""Encoders: what is learnt is kept, and nothing of a text is lost."""

import sys
from pathlib import Path

import numpy as np
import pytest

from mkailin_resources.embeddings import (
    CorpusEncoder,
    EncoderError,
    SentenceTransformersEncoder,
    open_encoder,
)
from mkailin_resources.storage import Storage

TEXTS = [
    "Aspirin lowers the risk of stroke in older adults",
    "Statins lower cholesterol and the risk of stroke",
    "Sleep loss impairs memory in students",
    "Memory training helps students sleep",
    "Vaccination prevents measles outbreaks in schools",
]


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised BERT with a window of 16 tokens."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "heart", "cancer", "drug", "sleep", "##s"]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=16, **size)
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    return folder


def test_a_saved_encoder_gives_bit_identical_vectors(tmp_path: Path) -> None:
    learnt = CorpusEncoder.learn(TEXTS)
    learnt.save(tmp_path)
    loaded = CorpusEncoder.load(tmp_path)
    assert loaded.fingerprint == learnt.fingerprint
    assert loaded.encode(TEXTS).tobytes() == learnt.encode(TEXTS).tobytes()
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors", ".json"}


def test_learning_twice_gives_the_same_encoder_and_other_texts_another() -> None:
    learnt = CorpusEncoder.learn(TEXTS)
    assert CorpusEncoder.learn(TEXTS).fingerprint == learnt.fingerprint
    assert CorpusEncoder.learn(TEXTS[:4]).fingerprint != learnt.fingerprint


def test_vectors_have_length_one_and_do_not_depend_on_their_batch() -> None:
    encoder = CorpusEncoder.learn(TEXTS)
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), encoder.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert (encoder.encode(TEXTS[3:4])[0] == vectors[3]).all()


def test_similar_texts_have_similar_vectors() -> None:
    encoder = CorpusEncoder.learn(TEXTS)
    similar = encoder.encode(["risk of stroke"]) @ encoder.encode(TEXTS).T
    assert set(np.argsort(-similar[0])[:2]) == {0, 1}


def test_a_text_without_a_known_word_is_the_zero_vector() -> None:
    vectors = CorpusEncoder.learn(TEXTS).encode(["", "  ", "肺癌", "xyzzy", "the of in"])
    assert not vectors.any()


@pytest.mark.parametrize("texts", [["aspirin"], ["aspirin stroke"] * 60, ["aspirin stroke", "sleep memory"]])
def test_the_dimension_never_exceeds_the_rank_of_the_corpus(texts: list[str]) -> None:
    assert CorpusEncoder.learn(texts).dimension == len(set(texts))


@pytest.mark.parametrize("texts", [[], ["", "the of"]])
def test_a_corpus_without_words_is_refused_with_what_to_do(texts: list[str]) -> None:
    with pytest.raises(EncoderError, match="materialize pubmed_citations and current_citations"):
        CorpusEncoder.learn(texts)


def test_a_short_text_gets_the_vector_sentence_transformers_gives(tiny_bert: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformersEncoder(str(tiny_bert))
    texts = ["heart drugs", "cancer sleep drug"]
    expected = SentenceTransformer(str(tiny_bert)).encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-6)


def test_the_end_of_a_text_longer_than_the_window_counts(tiny_bert: Path) -> None:
    encoder = SentenceTransformersEncoder(str(tiny_bert))
    beginning = "heart cancer " * 20
    one, other, same = encoder.encode(
        [beginning + "drug " * 9, beginning + "sleep " * 9, beginning + "drug " * 9]
    )
    assert abs(one - other).max() > 1e-3
    np.testing.assert_allclose(one, same, atol=1e-6)


def test_batches_and_empty_texts_change_no_other_vector(tiny_bert: Path) -> None:
    encoder = SentenceTransformersEncoder(str(tiny_bert))
    texts = ["heart", "", "cancer " * 50, "drug sleep"] * 40
    vectors = encoder.encode(texts)
    assert not vectors[1::4].any()
    np.testing.assert_allclose(vectors[-2:], encoder.encode(texts[-2:]), atol=1e-5)
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_the_fingerprint_of_a_model_follows_its_weights(tiny_bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformersEncoder(str(tiny_bert))
    assert SentenceTransformersEncoder(str(tiny_bert)).fingerprint == encoder.fingerprint
    changed = SentenceTransformer(str(tiny_bert))
    next(changed.parameters()).data += 0.1
    changed.save(str(tmp_path / "changed"))
    other = SentenceTransformersEncoder(str(tmp_path / "changed"))
    assert other.fingerprint != encoder.fingerprint
    with pytest.raises(EncoderError, match="its weights have changed"):
        open_encoder(str(tmp_path / "changed"), None, encoder.fingerprint, Storage(root=str(tmp_path)))


def test_an_unknown_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="give a sentence-transformers name that can be"):
        SentenceTransformersEncoder(str(tmp_path / "nothing-here"))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(EncoderError, match=r"pip install 'mkailin\[encoder\]'"):
        SentenceTransformersEncoder("any/model")
