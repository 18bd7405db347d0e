"""Made-up texts from a seed: words of one to four syllables by Zipf's law, so that no phrase repeats."""

from functools import cache

import numpy as np
import polars as pl

_WORDS = 30_000
_SEED = 20260104


def texts(first: int, height: int, words: int) -> pl.Series:
    """Texts of so many words with commas and full stops; those of one `first` are always the same."""
    vocabulary, weights = _vocabulary(), np.cumsum(1 / (np.arange(_WORDS) + 2.7))
    chance = np.random.default_rng([_SEED, first])
    drawn = chance.random(height * words) * weights[-1]
    pauses = chance.choice([" ", ", ", ". "], height * words, p=[0.85, 0.08, 0.07])
    spoken = pl.DataFrame(
        {
            "row": np.repeat(np.arange(height), words),
            "word": vocabulary[np.searchsorted(weights, drawn).astype(np.uint32)],
            "pause": pauses,
        }
    ).with_columns(text=pl.col("word") + pl.col("pause"))
    return spoken.group_by("row", maintain_order=True).agg(pl.col("text").str.join(""))["text"]


@cache
def _vocabulary() -> pl.Series:
    chance = np.random.default_rng(_SEED)
    syllables = np.array(
        [
            before + vowel + after
            for before in (*"bcdfghklmnprstvw", "st", "tr", "ch", "pl", "gr")
            for vowel in (*"aeiou", "ea", "io", "ou")
            for after in ("", *"nrslt")
        ]
    )
    return pl.Series(["".join(chance.choice(syllables, chance.integers(1, 5))) for _ in range(_WORDS)])
