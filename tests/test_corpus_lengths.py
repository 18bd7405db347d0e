"""How long a corpus is in tokens, and how many sequences it fills."""

from collections import Counter
from typing import TYPE_CHECKING

import polars as pl
import pytest
from small_release import training_examples
from tiny_model import tiny_tokenizer

from mkailin_assets.corpus.lengths import best_fit, corpus_lengths, joined
from mkailin_assets.corpus.tables import CorpusLength

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


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
