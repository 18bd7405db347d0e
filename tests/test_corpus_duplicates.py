"""Questions asked before are found, all of them and no others."""

import random

import pytest

from mkailin_assets.corpus.duplicates import duplicates, jaccard, shingles

WORDS = ("zinc", "iron", "walking", "asthma", "glucose", "children", "adults", "sleep", "of", "in", "with")


def near_copies(rng: random.Random) -> list[str]:
    questions = [" ".join(rng.choices(WORDS, k=rng.randint(1, 14))) for _ in range(120)]
    for _ in range(120):
        text = rng.choice(questions)
        at = rng.randrange(len(text))
        questions.append(text[:at] + rng.choice("abcxyz ") + text[at + rng.randint(0, 1) :])
    rng.shuffle(questions)
    return questions


def against_all(questions: list[str], similarity: float) -> list[int | None]:
    """The same by comparing each question with every new one before it."""
    new: list[int] = []
    repeated: list[int | None] = []
    for index, question in enumerate(questions):
        mine = shingles(question)
        earlier = (it for it in new if jaccard(mine, shingles(questions[it])) >= similarity)
        repeated.append(next(earlier, None))
        if repeated[-1] is None:
            new.append(index)
    return repeated


@pytest.mark.parametrize("similarity", [0.3, 0.7, 0.9, 1.0])
def test_repeats_are_those_that_comparing_all_pairs_finds(similarity: float) -> None:
    questions = near_copies(random.Random(similarity))
    expected = against_all(questions, similarity)
    assert duplicates(questions, similarity) == expected
    assert any(index is not None for index in expected)


def test_equal_questions_are_repeats_and_short_ones_are_compared_whole() -> None:
    assert duplicates(["is it", "why", "is it", "who", "why"], 0.9) == [None, None, 0, None, 1]
    assert duplicates([], 0.9) == []
