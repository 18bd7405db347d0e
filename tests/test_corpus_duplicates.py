"""Questions asked before are found: all of them, no others, and the first one stays."""

import json
import os
import random
import subprocess
import sys
import time
from itertools import pairwise
from string import ascii_letters

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_array

from mkailin_assets.corpus.duplicates import duplicates, similar_pairs

TEMPLATES = (
    " does treatment with {} improve {} in patients with {} ",
    " what is known about the role of {} and {} in {} ",
    " is {} associated with {} after {} in older adults ",
)
SYLLABLES = "ba ce do fi gu ha lo mi ne ro sa te vi xo".split()


def word(chance: random.Random) -> str:
    return "".join(chance.choices(SYLLABLES, k=chance.randint(2, 6)))


def near_copies(count: int) -> list[str]:
    """Templates filled in, every other question an earlier one with a word or a letter changed."""
    chance = random.Random(7)
    terms = [word(chance) for _ in range(200)]
    questions: list[str] = []
    while len(questions) < count:
        if len(questions) % 2:
            text = chance.choice(questions)
            at = chance.randrange(len(text))
            new = chance.choice(["", "q", "z ", word(chance)])
            questions.append(text[:at] + new + text[at + chance.randint(0, 3) :])
        else:
            questions.append(chance.choice(TEMPLATES).format(*chance.choices(terms, k=3)))
    return questions


def similarities(questions: list[str]) -> np.ndarray:
    """Jaccard similarity of every two questions, from a matrix of who has which five characters."""
    sets = [{text[at : at + 5] for at in range(max(len(text) - 4, 1))} for text in questions]
    columns = {member: column for column, member in enumerate(sorted(set().union(*sets)))}
    held = [columns[member] for members in sets for member in members]
    starts = np.cumsum([0, *map(len, sets)])
    has = csr_array((np.ones(len(held), np.int64), held, starts), shape=(len(sets), len(columns)))
    shared = (has @ has.T).toarray()
    sizes = np.diff(starts)
    return shared / (sizes[:, None] + sizes[None, :] - shared)


@pytest.fixture(scope="module")
def compared() -> tuple[list[str], np.ndarray]:
    questions = near_copies(3000)
    return questions, similarities(questions)


@pytest.mark.parametrize("similarity", [0.4, 0.5, 0.7, 0.9, 1.0])
def test_the_pairs_found_are_those_that_comparing_all_finds(
    compared: tuple[list[str], np.ndarray], similarity: float
) -> None:
    questions, jaccard = compared
    found = np.zeros(jaccard.shape, bool)
    found[tuple(similar_pairs(questions, similarity).to_numpy().T)] = True
    wanted = np.tril(jaccard >= similarity, -1)
    assert wanted.sum() > 50
    assert not (found & ~wanted).any()
    # Of the pairs just similar enough, 1.5 in 10,000 may be missed.
    assert (found & wanted).sum() >= 0.999 * wanted.sum()
    if similarity >= 0.7:
        assert (found == wanted).all()


@pytest.mark.parametrize("similarity", [0.7, 0.9, 1.0])
def test_a_question_repeats_the_first_one_like_it_that_stays(
    compared: tuple[list[str], np.ndarray], similarity: float
) -> None:
    questions, jaccard = compared
    stay: list[int] = []
    expected: list[int | None] = []
    for index in range(len(questions)):
        expected.append(next((it for it in stay if jaccard[index, it] >= similarity), None))
        if expected[-1] is None:
            stay.append(index)
    assert len(stay) < len(questions) - 50
    assert duplicates(questions, similarity).to_list() == expected


def test_the_order_decides_who_stays_and_a_chain_swallows_nothing() -> None:
    first = " does vitamin d reduce falls in older adults "
    chain = [first, first.replace("falls", "falls again"), first.replace("falls", "falls again and again")]
    chain_of = [similarities([a, b])[0, 1] for a, b in [*pairwise(chain), (chain[0], chain[2])]]
    assert chain_of[2] < 0.75 <= min(chain_of[:2])
    assert duplicates(chain, 0.75).to_list() == [None, 0, None]
    assert duplicates(chain[::-1], 0.75).to_list() == [None, 0, None]
    assert duplicates([chain[1], chain[0], chain[2]], 0.75).to_list() == [None, 0, 0]


def test_a_copy_repeats_what_its_original_repeats() -> None:
    near = (
        " does zinc shorten the common cold in children ",
        " does zinc shorten the common colds in children ",
    )
    asked = ["why", near[0], near[1], "why", near[1], "who", near[0]]
    assert duplicates(asked, 0.8).to_list() == [None, None, 1, 0, 1, None, 1]
    assert duplicates(asked, 1.0).to_list() == [None, None, None, 0, 2, None, 1]


def test_no_question_no_character_and_one_character_are_no_special_case() -> None:
    assert duplicates([], 0.9).to_list() == []
    assert similar_pairs([], 0.9).rows() == []
    assert duplicates(["", "a", "b", "a", "", "ab"], 0.5).to_list() == [None, None, None, 1, 0, None]


def test_five_characters_are_five_characters_in_any_script() -> None:
    # Ten sets of five and nine of them: 0.9, whatever the characters take in bytes.
    for text in (
        "abcdefghijklmn",
        "абвгдежзийклмн",
        "一二三四五六七八九十百千万亿",
        "😀😁😂😃😄😅😆😇😈😉😊😋😌😍",
    ):
        assert duplicates([text, text[:-1]], 0.9).to_list() == [None, 0]
        assert duplicates([text, text[:-1]], 0.91).to_list() == [None, None]
        assert duplicates([text, text[:-2] + text[-1] + text[-2]], 0.7).to_list() == [None, None]


def test_just_similar_enough_is_enough() -> None:
    chance = random.Random(5)
    letters = ["".join(chance.sample(ascii_letters, 24)) for _ in range(50)]
    # 20 sets of five, and 18, 16 or 14 of them.
    for left, similarity in ((2, 0.9), (4, 0.8), (6, 0.7)):
        asked = [text[: 24 - cut] for text in letters for cut in (0, left)]
        assert duplicates(asked, similarity)[1::2].to_list() == list(range(0, 100, 2))


def test_the_answer_is_the_same_in_another_process() -> None:
    questions = near_copies(400)
    code = (
        "import json, sys; from mkailin_assets.corpus.duplicates import duplicates;"
        "print(json.dumps(duplicates(json.load(sys.stdin), 0.7).to_list()))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(questions),
        env=os.environ | {"PYTHONHASHSEED": "4"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = duplicates(questions, 0.7)
    assert duplicates(pl.Series(questions), 0.7).equals(here)
    assert json.loads(other.stdout) == here.to_list()


def test_many_questions_of_one_template_do_not_take_the_time_of_all_their_pairs() -> None:
    """50,000 of each are 1,250,000,000 pairs, which take minutes to compare."""
    chance = random.Random(3)
    numbered = [
        f" does metformin reduce adenoma in patients with type {n} diabetes mellitus " for n in range(50_000)
    ]
    filled = [
        f" what is known about the effects of {word(chance)} {word(chance)} on the risk of death "
        f"from any cause in older adults with {word(chance)} {word(chance)} "
        for _ in range(50_000)
    ]
    copies = [filled[0]] * 50_000
    duplicates(numbered[:10], 0.9)
    started = time.process_time()
    assert duplicates(numbered, 0.9).null_count() > 10_000
    assert duplicates(numbered, 0.7).null_count() < 10
    assert duplicates(filled, 0.9).null_count() > 49_000
    assert duplicates(copies, 0.7).null_count() == 1
    assert time.process_time() - started < 15


@pytest.mark.parametrize("similarity", [0.0, 0.2, 1.1, float("nan")])
def test_a_similarity_that_cannot_be_promised_is_refused(similarity: float) -> None:
    with pytest.raises(ValueError, match=r"near-duplicates are found from 0\.24 to 1"):
        duplicates(["why"], similarity)
