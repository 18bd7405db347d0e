"""Similarity of heading lists: exact against sets of ancestors compared pair by pair."""

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import mesh_2024
import numpy as np
import polars as pl
import pytest

from mkailin_assets.mesh.hierarchy import (
    MeshHierarchy,
    corpus_ic,
    count_annotations,
    information_content,
)
from mkailin_assets.mesh.similarity import MEASURES, HeadingSimilarity, Measure

SIBLINGS = {
    "root": ["A01"],
    "mother": ["A01.100"],
    "one": ["A01.100.100"],
    "two": ["A01.100.200"],
    "far": ["B01"],
}
SIBLING_IC = {"root": 0.1, "mother": 0.5, "one": 0.8, "two": 1.0, "far": 0.3}


def naive_average(
    hierarchy: MeshHierarchy,
    ic: Mapping[str, float],
    measure: Measure,
    population: int,
    pair: tuple[Sequence[str], Sequence[str]],
) -> float:
    """The formulas of docs/method.md as they are written."""

    def similarity(x: str, y: str) -> float:
        shared = hierarchy.ancestors(x) & hierarchy.ancestors(y)
        mica = max((ic[c] for c in shared), default=0.0)
        both = ic[x] + ic[y]
        lin = 2 * mica / both if both > 0 else float(bool(shared))
        probability = math.exp(-mica * math.log(population))
        return {
            "lin": lin,
            "resnik": mica,
            "jiang_conrath": 1 - min(1.0, both - 2 * mica),
            "rel": lin * (1 - probability),
        }[measure]

    a, b = map(hierarchy.scorable, pair)
    forth = sum(max(similarity(x, y) for y in b) for x in a) / len(a)
    back = sum(max(similarity(x, y) for x in a) for y in b) / len(b)
    return (forth + back) / 2


@pytest.fixture(scope="module")
def tree_2024(real_data: Path) -> MeshHierarchy:
    return mesh_2024.tree(real_data)


@pytest.fixture(scope="module")
def real_lists(tree_2024: MeshHierarchy) -> list[list[str]]:
    """Half the headings from anywhere, half from a few neighbourhoods, so that lists share ancestors."""
    chance = random.Random(7)
    near = tree_2024.uis[1_000:1_400]
    return [chance.sample(tree_2024.uis, 6) + chance.sample(near, 6) + ["D006801"] for _ in range(60)]


@pytest.fixture(scope="module")
def real_ic(tree_2024: MeshHierarchy, real_lists: list[list[str]]) -> Mapping[str, float]:
    counted = count_annotations(tree_2024, [pl.Series(real_lists)])
    return corpus_ic(counted.by_descriptor, counted.citations)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("source", ["corpus", "intrinsic"])
def test_every_measure_equals_the_naive_one(
    tree_2024: MeshHierarchy,
    real_lists: list[list[str]],
    real_ic: Mapping[str, float],
    measure: Measure,
    source: str,
) -> None:
    ic, population = (
        (real_ic, len(real_lists) + 1)
        if source == "corpus"
        else (tree_2024.intrinsic_ic(), len(tree_2024.uis))
    )
    chance = random.Random(11)
    sources = [chance.choice(real_lists) for _ in range(40)]
    contexts = [chance.choice(real_lists) for _ in range(40)]
    found = HeadingSimilarity(tree_2024, ic, measure, population).best_match_averages(sources, contexts)
    expected = [
        naive_average(tree_2024, ic, measure, population, pair)
        for pair in zip(sources, contexts, strict=True)
    ]
    assert np.abs(found - expected).max() <= 1e-12
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("measure", MEASURES)
def test_it_is_symmetric(
    tree_2024: MeshHierarchy, real_lists: list[list[str]], real_ic: Mapping[str, float], measure: Measure
) -> None:
    similarity = HeadingSimilarity(tree_2024, real_ic, measure, 61)
    forth = similarity.best_match_averages(real_lists[:30], real_lists[30:])
    assert (forth == similarity.best_match_averages(real_lists[30:], real_lists[:30])).all()


@pytest.mark.parametrize("measure", ["lin", "jiang_conrath"])
def test_a_list_with_itself_is_1(
    tree_2024: MeshHierarchy, real_lists: list[list[str]], real_ic: Mapping[str, float], measure: Measure
) -> None:
    shuffled = [headings[::-1] for headings in real_lists]
    similarity = HeadingSimilarity(tree_2024, real_ic, measure)
    assert similarity.best_match_averages(real_lists, shuffled) == pytest.approx(1, abs=1e-12)


def test_two_leaves_of_one_parent_are_alike_and_strangers_are_not() -> None:
    similarity = HeadingSimilarity(MeshHierarchy(SIBLINGS), SIBLING_IC)
    assert similarity.best_match_average(["one"], ["two"]) == pytest.approx(2 * 0.5 / 1.8)
    assert similarity.best_match_average(["one"], ["far"]) == 0
    half = (1 + (1 + 0) / 2) / 2  # `one` finds itself; of `one` and `far`, only the first is found
    assert similarity.best_match_average(["one"], ["one", "far"]) == pytest.approx(half)


def test_jiang_conrath_of_strangers_is_what_their_distance_leaves() -> None:
    similarity = HeadingSimilarity(MeshHierarchy(SIBLINGS), SIBLING_IC, "jiang_conrath")
    assert similarity.best_match_average(["root"], ["far"]) == pytest.approx(1 - 0.4)
    assert similarity.best_match_average(["one"], ["far"]) == 0


def test_rel_takes_its_probability_from_the_population() -> None:
    similarity = HeadingSimilarity(MeshHierarchy(SIBLINGS), SIBLING_IC, "rel", population=100)
    assert similarity.best_match_average(["one"], ["two"]) == pytest.approx(2 * 0.5 / 1.8 * (1 - 0.1))
    with pytest.raises(ValueError, match="population"):
        HeadingSimilarity(MeshHierarchy(SIBLINGS), SIBLING_IC, "rel")


@pytest.mark.parametrize("source", ["corpus", "intrinsic"])
def test_the_table_gives_the_population_that_its_counts_were_taken_over(
    source: Literal["corpus", "intrinsic"],
) -> None:
    hierarchy = MeshHierarchy(SIBLINGS)
    counted = count_annotations(hierarchy, [pl.Series([["one"], ["two"], ["far"]])])
    descriptors = pl.DataFrame({"descriptor_ui": list(SIBLINGS), "name": list(SIBLINGS)})
    table = information_content(descriptors, hierarchy, counted)
    mother = {"corpus": (2 + 1) / (3 + 1), "intrinsic": (2 + 1) / 5}[source]  # p, counted by hand
    lin, rel = (
        HeadingSimilarity.from_table(hierarchy, table, source, measure).best_match_average(["one"], ["two"])
        for measure in ("lin", "rel")
    )
    assert rel == pytest.approx(lin * (1 - mother))


def test_a_side_without_scorable_headings_has_no_score() -> None:
    similarity = HeadingSimilarity(MeshHierarchy({**SIBLINGS, "D008297": []}), {**SIBLING_IC, "D008297": 1.0})
    scores = similarity.best_match_averages([["one"], [], ["D008297"]], [["unknown"], ["one"], ["one"]])
    assert np.isnan(scores).all()
    assert similarity.best_match_average(["one", "D008297", "unknown"], ["one"]) == 1


def test_descriptors_that_say_nothing_are_like_themselves() -> None:
    similarity = HeadingSimilarity(MeshHierarchy(SIBLINGS), dict.fromkeys(SIBLINGS, 0.0))
    assert similarity.best_match_average(["one"], ["one"]) == 1
    assert similarity.best_match_average(["one"], ["far"]) == 0


def test_an_ic_that_falls_downwards_is_refused() -> None:
    with pytest.raises(ValueError, match=r"IC of mother .* is above that of its descendant one"):
        HeadingSimilarity(MeshHierarchy(SIBLINGS), {**SIBLING_IC, "mother": 0.9})


def test_unknown_measures_and_uneven_sides_are_refused() -> None:
    with pytest.raises(ValueError, match="lin, resnik"):
        HeadingSimilarity(MeshHierarchy(SIBLINGS), SIBLING_IC, "cosine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 sources cannot be paired with 0 contexts"):
        HeadingSimilarity(MeshHierarchy(SIBLINGS), SIBLING_IC).best_match_averages([["one"]], [])


def test_more_pairs_than_a_block_are_scored_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    similarity = HeadingSimilarity(MeshHierarchy(SIBLINGS), SIBLING_IC)
    sources = [["one"], ["one"], ["one", "far"], [], ["two"], ["root", "one"]]
    contexts = [["two"], ["far"], ["mother"], ["one"], ["two"], ["far", "two"]]
    whole = similarity.best_match_averages(sources, contexts)
    monkeypatch.setattr("mkailin_assets.mesh.similarity._BLOCK", 2)
    np.testing.assert_array_equal(similarity.best_match_averages(sources, contexts), whole)
    assert similarity.best_match_averages([], []).shape == (0,)
