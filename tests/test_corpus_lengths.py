"""How long a corpus is in tokens, and how many sequences it fills."""

from pathlib import Path

import polars as pl
import pytest
from small_release import training_examples

from mkailin_assets.corpus.lengths import best_fit, corpus_lengths, joined, tokenizer_of
from mkailin_assets.corpus.tables import CorpusLength
from mkailin_resources.models.interface import ModelUnavailable


@pytest.mark.parametrize(
    ("lengths", "room", "sequences"),
    [
        ({}, 10, 0),
        ({10: 3}, 10, 3),
        ({5: 4}, 10, 2),
        ({7: 1, 3: 1, 6: 1, 4: 1}, 10, 2),
        ({6: 2, 5: 2}, 10, 3),
        ({25: 1, 9: 1, 1: 1}, 10, 2),
    ],
)
def test_pairs_are_packed_whole_and_tightly(lengths: dict[int, int], room: int, sequences: int) -> None:
    assert best_fit(lengths, room) == sequences


def test_texts_that_are_joined_fill_every_sequence_but_the_last() -> None:
    assert joined({3: 4}, 5) == 3
    assert joined({}, 5) == 0


def test_the_tokenizer_learnt_from_the_corpus_counts_every_text_of_every_split() -> None:
    examples = training_examples()
    tokenizer, name = tokenizer_of(examples.lazy(), "")
    assert name == f"learnt from the corpus ({len(tokenizer):,} tokens)"
    lengths = CorpusLength.validate(corpus_lengths(examples.iter_slices(2), tokenizer, name, 64))
    per_split = dict(examples["split"].value_counts().iter_rows())
    counted = {
        (form, split): number for form, split, number in lengths.select("form", "split", "examples").rows()
    }
    assert counted == {
        (form, split): number
        for form in ("pretraining", "instruction")
        for split, number in per_split.items()
    }
    train = lengths.filter(form="pretraining", split="train").row(0, named=True)
    texts = examples.filter(split="train")["pretraining_text"].to_list()
    tokens = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1 for text in texts]
    assert (train["tokens"], train["longest"]) == (sum(tokens), max(tokens))
    assert train["sequences"] == -(-sum(tokens) // 64)


def test_an_instruction_pair_is_as_long_as_the_conversation_with_its_end() -> None:
    examples = training_examples().head(1)
    tokenizer, name = tokenizer_of(training_examples().lazy(), "")
    lengths = corpus_lengths([examples], tokenizer, name, 4096)
    whole = tokenizer.apply_chat_template(examples["messages"].to_list()[0], tokenize=True, return_dict=False)
    counted = lengths.filter((pl.col("form") == "instruction") & (pl.col("examples") == 1))
    assert counted["tokens"].to_list() == [len(whole)]


def test_a_tokenizer_is_read_from_a_folder_and_called_by_its_name(tmp_path: Path) -> None:
    learnt, _ = tokenizer_of(training_examples().lazy(), "")
    learnt.save_pretrained(tmp_path / "mine")
    read, name = tokenizer_of(training_examples().lazy(), str(tmp_path / "mine"))
    assert (name, len(read)) == ("mine", len(learnt))
    with pytest.raises(ModelUnavailable, match="nowhere"):
        tokenizer_of(training_examples().lazy(), str(tmp_path / "nowhere"))
