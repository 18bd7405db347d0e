"""Encoders: what is learnt is kept, and nothing of a text is lost."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from minilm import minilm_folder
from tiny_model import make_bert

from mkailin_resources.embeddings import sentence
from mkailin_resources.embeddings.checkpoint import (
    EncoderRecord,
    named_encoder,
    open_encoder,
    publish_encoder,
)
from mkailin_resources.embeddings.corpus import CorpusEncoder
from mkailin_resources.embeddings.interface import EncoderError, EncoderSettings
from mkailin_resources.embeddings.sentence import SentenceEncoder
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
    return make_bert(tmp_path_factory.mktemp("bert"), ["heart", "cancer", "drug", "sleep", "##s"], window=16)


def test_a_saved_encoder_gives_bit_identical_vectors(tmp_path: Path) -> None:
    learnt = CorpusEncoder.learn(TEXTS)
    learnt.save(tmp_path)
    loaded = CorpusEncoder.load(tmp_path)
    assert loaded.fingerprint == learnt.fingerprint
    assert loaded.encode_documents(TEXTS).tobytes() == learnt.encode_documents(TEXTS).tobytes()
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors", ".json"}


def test_learning_twice_gives_the_same_encoder_and_other_texts_another() -> None:
    learnt = CorpusEncoder.learn(TEXTS)
    assert CorpusEncoder.learn(TEXTS).fingerprint == learnt.fingerprint
    assert CorpusEncoder.learn(TEXTS[:4]).fingerprint != learnt.fingerprint


def test_vectors_have_length_one_and_do_not_depend_on_their_batch() -> None:
    encoder = CorpusEncoder.learn(TEXTS)
    vectors = encoder.encode_documents(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), encoder.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert (encoder.encode_documents(TEXTS[3:4])[0] == vectors[3]).all()


def test_similar_texts_have_similar_vectors() -> None:
    encoder = CorpusEncoder.learn(TEXTS)
    similar = encoder.encode_documents(["risk of stroke"]) @ encoder.encode_documents(TEXTS).T
    assert set(np.argsort(-similar[0])[:2]) == {0, 1}


def test_a_text_without_a_known_word_is_the_zero_vector() -> None:
    vectors = CorpusEncoder.learn(TEXTS).encode_documents(["", "  ", "肺癌", "xyzzy", "the of in"])
    assert not vectors.any()


@pytest.mark.parametrize("texts", [["aspirin"], ["aspirin stroke"] * 60, ["aspirin stroke", "sleep memory"]])
def test_the_dimension_is_the_rank_of_the_corpus_in_whole_bytes_of_bits(texts: list[str]) -> None:
    encoder = CorpusEncoder.learn(texts)
    assert encoder.dimension == 8
    assert np.linalg.matrix_rank(encoder.encode_documents(texts)) == len(set(texts))


@pytest.mark.parametrize("texts", [[], ["", "the of"]])
def test_a_corpus_without_words_is_refused_with_what_to_do(texts: list[str]) -> None:
    with pytest.raises(EncoderError, match="materialize pubmed_citations and current_citations"):
        CorpusEncoder.learn(texts)


def test_a_short_text_gets_the_vector_sentence_transformers_gives(tiny_bert: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceEncoder.load(str(tiny_bert))
    texts = ["heart drugs", "cancer sleep drug"]
    expected = SentenceTransformer(str(tiny_bert)).encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_documents(texts), expected, atol=1e-6)


def test_the_end_of_a_text_longer_than_the_window_counts(tiny_bert: Path) -> None:
    encoder = SentenceEncoder.load(str(tiny_bert))
    beginning = "heart cancer " * 20
    one, other, same = encoder.encode_documents(
        [beginning + "drug " * 9, beginning + "sleep " * 9, beginning + "drug " * 9]
    )
    assert abs(one - other).max() > 1e-3
    np.testing.assert_allclose(one, same, atol=1e-6)


def test_batches_and_empty_texts_change_no_other_vector(tiny_bert: Path) -> None:
    encoder = SentenceEncoder.load(str(tiny_bert))
    texts = ["heart", "", "cancer " * 50, "drug sleep"] * 40
    vectors = encoder.encode_documents(texts)
    assert not vectors[1::4].any()
    np.testing.assert_allclose(vectors[-2:], encoder.encode_documents(texts[-2:]), atol=1e-5)
    assert encoder.encode_documents([]).shape == (0, encoder.dimension)


def test_the_fingerprint_of_a_model_follows_its_weights(tiny_bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceEncoder.load(str(tiny_bert))
    encoder.encode_documents(["heart drugs"])
    assert SentenceEncoder(encoder.documents).fingerprint == encoder.fingerprint, "its use does not count"
    assert SentenceEncoder.load(str(tiny_bert)).fingerprint == encoder.fingerprint
    changed = SentenceTransformer(str(tiny_bert))
    next(changed.parameters()).data += 0.1
    changed.save(str(tmp_path / "changed"))
    other = SentenceEncoder.load(str(tmp_path / "changed"))
    assert other.fingerprint != encoder.fingerprint
    storage = Storage(root=str(tmp_path))
    uri = publish_encoder(*named_encoder(EncoderSettings(name=str(tmp_path / "changed"))), storage)
    with pytest.raises(EncoderError, match="its weights have changed"):
        open_encoder(uri, encoder.fingerprint, storage)


def test_an_unknown_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="give a sentence-transformers name that can be"):
        SentenceEncoder.load(str(tmp_path / "nothing-here"))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(EncoderError, match=r"pip install 'mkailin\[encoder\]'"):
        SentenceEncoder.load("any/model")


@pytest.fixture(scope="module")
def other_bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with other weights, as the encoder of questions of a pair."""
    from transformers import AutoModel, AutoTokenizer

    folder = tmp_path_factory.mktemp("questions")
    model = AutoModel.from_pretrained(tiny_bert)
    next(model.parameters()).data += 0.5
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    return folder


def test_a_pair_of_models_encodes_questions_with_the_one_and_documents_with_the_other(
    tiny_bert: Path, other_bert: Path, tmp_path: Path
) -> None:
    pair = SentenceEncoder.load(str(tiny_bert), str(other_bert))
    texts = ["heart drugs", "cancer sleep"]
    documents, questions = SentenceEncoder.load(str(tiny_bert)), SentenceEncoder.load(str(other_bert))
    np.testing.assert_array_equal(pair.encode_documents(texts), documents.encode_documents(texts))
    np.testing.assert_array_equal(pair.encode_queries(texts), questions.encode_queries(texts))
    assert len({pair.fingerprint, documents.fingerprint, questions.fingerprint}) == 3
    settings = EncoderSettings(name=str(tiny_bert), query_name=str(other_bert))
    storage = Storage(root=str(tmp_path))
    uri = publish_encoder(*named_encoder(settings), storage)
    opened = open_encoder(uri, pair.fingerprint, storage)
    np.testing.assert_array_equal(opened.encode_queries(texts), pair.encode_queries(texts))


def test_pooling_takes_the_vector_of_the_first_token_where_that_is_asked(tiny_bert: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    given = AutoTokenizer.from_pretrained(tiny_bert)(["heart drugs"], return_tensors="pt")
    with torch.inference_mode():
        tokens = AutoModel.from_pretrained(tiny_bert)(**given).last_hidden_state[0].numpy()
    expected = {"cls": tokens[0], "mean": tokens.mean(axis=0)}
    for pooling, vector in expected.items():
        encoder = SentenceEncoder.load(str(tiny_bert), pooling=pooling)  # type: ignore[arg-type]
        found = encoder.encode_documents(["heart drugs"])[0]
        np.testing.assert_allclose(found, vector / np.linalg.norm(vector), atol=1e-5)


def test_the_prompts_of_a_model_are_put_before_questions_and_documents(
    tiny_bert: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    prompts = {"query": "cancer ", "document": "sleep "}
    SentenceTransformer(str(tiny_bert), prompts=prompts).save(str(tmp_path), create_model_card=False)
    with_prompts, plain = SentenceEncoder.load(str(tmp_path)), SentenceEncoder.load(str(tiny_bert))
    np.testing.assert_allclose(
        with_prompts.encode_queries(["heart"]), plain.encode_queries(["cancer heart"]), atol=1e-6
    )
    np.testing.assert_allclose(
        with_prompts.encode_documents(["heart"]), plain.encode_documents(["sleep heart"]), atol=1e-6
    )


def test_every_token_of_a_text_of_any_length_is_in_one_of_its_pieces(tiny_bert: Path) -> None:
    model = SentenceEncoder.load(str(tiny_bert)).documents
    texts = [
        "heart",
        "heart cancer drug " * 6_000,
        "x" * 100_000,
        "heart\n\n" * 50,
        "heart" * 40 + " drug",
        "\u80ba\u764c" * 40,
    ]
    for text in texts:
        pieces = sentence._pieces([text], model, "")
        said = "".join(piece for _, piece, _ in pieces)
        assert "".join(said.split()) == "".join(text.split())
        assert {owner for owner, _, _ in pieces} == {0}
        assert max(len(model.tokenizer(piece)["input_ids"]) for _, piece, _ in pieces) <= 16
        assert all(piece[:1] != "#" for _, piece, _ in pieces)


def test_a_text_of_one_window_has_a_long_text_s_vector_only_if_they_say_the_same(tiny_bert: Path) -> None:
    encoder = SentenceEncoder.load(str(tiny_bert))
    short, repeated = encoder.encode_documents(["heart drug " * 7, "heart drug " * 7 * 3])
    np.testing.assert_allclose(short, repeated, atol=1e-5)


def test_two_models_of_other_dimensions_are_no_pair(tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertConfig, BertModel

    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=10, **size)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match="vectors of 16 numbers and questions of 8"):
        SentenceEncoder.load(str(tiny_bert), str(tmp_path))


def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    storage = Storage(root=str(tmp_path))
    (tmp_path / "encoders").mkdir()
    with pytest.raises(EncoderError, match="materialize retriever_checkpoint again"):
        open_encoder(str(tmp_path / "encoders"), "any", storage)


def test_minilm_gives_the_vectors_that_sentence_transformers_gives() -> None:
    from sentence_transformers import SentenceTransformer

    folder = str(minilm_folder())
    encoder, model = SentenceEncoder.load(folder), SentenceTransformer(folder)
    np.testing.assert_allclose(
        encoder.encode_documents(TEXTS), model.encode(TEXTS, normalize_embeddings=True), atol=1e-6
    )
    similar = encoder.encode_queries(["Does vaccination stop measles?"]) @ encoder.encode_documents(TEXTS).T
    assert int(similar.argmax()) == 4


@pytest.mark.parametrize("pooling", ["", "cls"])
def test_weights_that_are_not_safetensors_are_not_read(tiny_bert: Path, tmp_path: Path, pooling: str) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(tiny_bert)
    model.config.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="safetensors"):
        SentenceEncoder.load(str(tmp_path), pooling=pooling)  # type: ignore[arg-type]


def test_publishing_again_mends_a_damaged_encoder_and_a_moved_one_is_another(
    tiny_bert: Path, tmp_path: Path
) -> None:
    storage, record = Storage(root=str(tmp_path / "root")), EncoderRecord(kind="corpus", name="corpus")
    learnt = CorpusEncoder.learn(TEXTS)
    uri = publish_encoder(learnt, record, storage)
    (Path(uri) / "encoder.safetensors").write_bytes(b"cut off")
    with pytest.raises(EncoderError, match="materialize retriever_checkpoint"):
        open_encoder(uri, learnt.fingerprint, storage)
    assert publish_encoder(learnt, record, storage) == uri
    assert open_encoder(uri, learnt.fingerprint, storage).dimension == learnt.dimension

    first = publish_encoder(*named_encoder(EncoderSettings(name=str(tiny_bert))), storage)
    shutil.copytree(tiny_bert, tmp_path / "moved")
    second = publish_encoder(*named_encoder(EncoderSettings(name=str(tmp_path / "moved"))), storage)
    assert first != second
    assert json.loads((Path(second) / "encoder.json").read_text())["name"] == str(tmp_path / "moved")


def test_a_raw_dpr_checkpoint_is_refused_with_what_to_do(tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, DPRConfig, DPRContextEncoder

    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    DPRContextEncoder(DPRConfig(vocab_size=10, **size)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match="name its conversion to sentence-transformers"):
        SentenceEncoder.load(str(tmp_path))
