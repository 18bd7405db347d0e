"""Similarity by the predecessor's published code: its formula and its defects, and the same as one by one."""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import mesh_2024
import numpy as np
import polars as pl
import pytest

from mkailin_assets.mesh.hierarchy import MeshHierarchy, count_annotations, information_content
from mkailin_assets.mesh.kailin import KailinSimilarity

# Of a thousand in branch C04 one is below `mother`: IC 3, and MaxIC. Half are below `top`: IC log10(2).
DEEP = {
    "top": ["C04"],
    "mother": ["C04.100"],
    "leaf": ["C04.100.100"],
    "aunt": ["C04.200"],
    "other": ["A01"],
    "other leaf": ["A01.100"],
}
DEEP_COUNTS = {"top": 500, "mother": 1, "leaf": 1, "aunt": 498, "other": 9, "other leaf": 9}
TOP_IC = math.log10(2)

FLAT = {"top": ["C04"], "mother": ["C04.100"], "one": ["C04.100.100"], "two": ["C04.100.200"]}
FLAT_COUNTS = {"top": 4, "mother": 4, "one": 3, "two": 1}


class PublishedFormula:
    """What mkailin_assets/mesh/kailin.py describes, one pair of headings after the other, on text."""

    def __init__(self, hierarchy: MeshHierarchy, citations: Mapping[str, int]) -> None:
        self.trees = {ui: hierarchy.tree_numbers(ui) for ui in hierarchy.uis}
        self.holders = {number: ui for ui in hierarchy.uis for number in self.trees[ui]}
        self.children: dict[str, list[tuple[str, str]]] = {ui: [] for ui in hierarchy.uis}
        for number, ui in self.holders.items():
            if (parent := number.rpartition(".")[0]) in self.holders:
                self.children[self.holders[parent]].append((ui, number.split(".")[0]))
        whole: Counter[str] = Counter()
        for ui in hierarchy.uis:
            whole.update(dict.fromkeys(hierarchy.branches(ui), citations[ui]))
        self.ic: dict[str, dict[str, float]] = {}
        self.max_ic: dict[str, float] = dict.fromkeys(whole, 0.0)
        for ui in hierarchy.uis:
            counted = dict.fromkeys(hierarchy.branches(ui), 0)
            for low, branch in self.descendants(ui):
                if branch in counted:
                    counted[branch] += citations[low]
            self.ic[ui] = {
                branch: -math.log10(count / whole[branch]) if count else 0.0
                for branch, count in counted.items()
            }
            self.max_ic |= {branch: max(ic, self.max_ic[branch]) for branch, ic in self.ic[ui].items()}

    def descendants(self, ui: str) -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        waiting = [ui]
        while waiting:
            new = set(self.children[waiting.pop()]) - found
            found |= new
            waiting += [child for child, _ in new]
        return found

    def ancestor(self, a: str, b: str) -> str | None:
        shared = [""]
        for one in self.trees[a]:
            for other in self.trees[b]:
                parts = one.split(".")
                shared += [
                    ".".join(parts[:level])
                    for level in range(1, len(parts) + 1)
                    if parts[:level] == other.split(".")[:level]
                ]
        return self.holders.get(min(shared, key=lambda number: (-len(number), number)))

    def similarity(self, a: str, b: str) -> float:
        if a == b:
            return 1.0
        ancestor = self.ancestor(a, b)
        values: list[float] = []
        for branch in self.ic[ancestor] if ancestor else ():
            if branch in self.ic[a] and branch in self.ic[b] and self.ic[a][branch] + self.ic[b][branch] > 0:
                s = self.ic[a][branch] + self.ic[b][branch]
                t = self.ic[ancestor][branch] / self.max_ic[branch]
                lin = 2 * t / s
                rel = lin * (1 - 10 ** (-t * self.max_ic[branch]))
                values += [lin, 1 - min(1, s - 2 * t), rel]
        return float(np.clip(values, 0, 1).mean()) if values else 0.0

    def average(self, a: Sequence[str], b: Sequence[str]) -> float:
        pairs = [(x, y) for x in a for y in b if self.trees[x] and self.trees[y]]
        return sum(self.similarity(x, y) for x, y in pairs) / len(pairs) if pairs else math.nan


def score(similarity: KailinSimilarity, a: str | Sequence[str], b: str | Sequence[str]) -> float:
    one, other = ([side] if isinstance(side, str) else side for side in (a, b))
    return float(similarity.best_match_averages([one], [other])[0])


@pytest.fixture(scope="module")
def deep() -> KailinSimilarity:
    return KailinSimilarity(MeshHierarchy(DEEP), DEEP_COUNTS)


@pytest.fixture(scope="module")
def flat() -> KailinSimilarity:
    return KailinSimilarity(MeshHierarchy(FLAT), FLAT_COUNTS)


def test_leaves_say_nothing_so_two_of_one_mother_score_0(flat: KailinSimilarity) -> None:
    assert score(flat, "one", "two") == 0


def test_on_a_small_tree_a_leaf_and_its_mother_score_1(flat: KailinSimilarity) -> None:
    assert score(flat, "one", "mother") == 1
    assert score(flat, "mother", "two") == 1


def test_a_heading_is_like_itself_even_where_it_says_nothing(deep: KailinSimilarity) -> None:
    assert [score(deep, ui, ui) for ui in DEEP] == [1] * len(DEEP)


def test_headings_of_other_trees_score_0(deep: KailinSimilarity) -> None:
    assert score(deep, "mother", "other") == 0
    assert score(deep, "top", "other leaf") == 0


def test_lin_jiang_and_rel_are_averaged(deep: KailinSimilarity) -> None:
    lin, jiang, rel = 2 * 1 / 3, 1 - (3 - 2 * 1), 2 * 1 / 3 * (1 - 10**-3)  # t = 3 / 3, S = 0 + 3
    assert score(deep, "leaf", "mother") == pytest.approx((lin + jiang + rel) / 3, abs=1e-12)


def test_a_leaf_is_liker_the_head_of_its_branch_than_its_mother(deep: KailinSimilarity) -> None:
    t = TOP_IC / 3
    lin, jiang, rel = 2 * t / TOP_IC, 1 - (TOP_IC - 2 * t), 2 * t / TOP_IC * (1 - 10**-TOP_IC)
    assert score(deep, "leaf", "top") == pytest.approx((lin + jiang + rel) / 3, abs=1e-12)
    assert score(deep, "leaf", "top") > score(deep, "leaf", "mother")


def test_two_that_meet_at_the_head_of_a_branch_are_far_apart(deep: KailinSimilarity) -> None:
    t = TOP_IC / 3  # the head of the branch is the common ancestor, and the aunt is a leaf
    lin, jiang, rel = 2 * t / 3, 0, 2 * t / 3 * (1 - 10**-TOP_IC)  # S - 2 t is above 1
    assert score(deep, "mother", "aunt") == pytest.approx((lin + jiang + rel) / 3, abs=1e-12)


def test_each_value_is_cut_at_1_before_the_mean() -> None:
    # MaxIC is IC(mother), 1. With a leaf Lin and Jiang are above 1, Rel is 2 (1 - 1/2) or 2 (1 - 1/10).
    counts = {"top": 50, "mother": 10, "leaf": 10, "aunt": 30, "other": 0, "other leaf": 0}
    similarity = KailinSimilarity(MeshHierarchy(DEEP), counts)
    assert score(similarity, "leaf", "top") == pytest.approx(1, abs=1e-12)
    assert score(similarity, "leaf", "mother") == 1
    t, s = TOP_IC, 1 + TOP_IC
    lin, jiang, rel = 2 * t / s, 1 - (s - 2 * t), 2 * t / s * (1 - 10**-TOP_IC)
    assert score(similarity, "top", "mother") == pytest.approx((lin + jiang + rel) / 3, abs=1e-12)


def test_every_pair_of_headings_counts(deep: KailinSimilarity) -> None:
    one_by_one = [score(deep, x, y) for x in ("leaf", "top", "other") for y in ("leaf", "mother")]
    assert score(deep, ["leaf", "top", "other"], ["leaf", "mother"]) == pytest.approx(np.mean(one_by_one))
    assert score(deep, ["leaf", "leaf"], ["leaf", "other"]) == 0.5  # a heading counts once


def test_of_several_branches_those_that_the_common_ancestor_stands_in_count() -> None:
    tree = {
        "c": ["C04"],
        "d": ["D01"],
        "e": ["E01"],
        "both": ["C04.100", "D01.100"],
        "wide": ["C04.100.100", "D01.100.100", "E01.100"],
        "leaf": ["C04.100.100.100", "D01.100.100.100", "E01.200"],
    }
    counts = {"c": 5, "d": 95, "e": 5, "both": 2, "wide": 2, "leaf": 1}
    # C04 adds up to 10, D01 to 100. IC(wide) is 1 in C04 and 2 in D01, both times MaxIC. Their longest common
    # tree numbers have three parts, so E01 does not decide; it counts all the same, for `wide` stands in it.
    similarity = KailinSimilarity(MeshHierarchy(tree), counts)
    c04 = (1, 1, 1)  # t = 1 and S = 1: Lin 2, Jiang 2, Rel 1.8
    d01 = (2 / 2, 1, 2 / 2 * (1 - 10**-2))
    assert score(similarity, "leaf", "wide") == pytest.approx(np.mean([*c04, *d01]), abs=1e-12)
    # Of `both` and `leaf` the ancestor is `both`, in C04 and D01 alone.
    c, d = -math.log10(3 / 10), -math.log10(3 / 100)
    c04 = (min(1, 2 / 1), 1, min(1, 2 * (1 - 3 / 10)))
    d01 = (2 / 2, 1 - min(1, d - 2 * d / 2), 2 / 2 * (1 - 3 / 100))
    assert 0 < c < d
    assert score(similarity, "leaf", "both") == pytest.approx(np.mean([*c04, *d01]), abs=1e-12)


def test_of_two_common_ancestors_equally_deep_the_first_by_tree_number_counts() -> None:
    tree = {
        "first": ["C04"],
        "second": ["D01"],
        "one": ["C04.100", "D01.100"],
        "two": ["D01.200", "C04.200"],
        "under two": ["D01.200.100"],
    }
    counts = {"first": 5, "second": 5, "one": 1, "two": 3, "under two": 2}
    # In C04 both are leaves: S is 0 and nothing counts. D01 would give a score above 0.
    assert score(KailinSimilarity(MeshHierarchy(tree), counts), "one", "two") == 0


def test_check_tags_count_and_headings_without_a_place_do_not() -> None:
    tree = {**DEEP, "D006801": ["B01.100"], "D008297": []}
    counts = {**DEEP_COUNTS, "D006801": 3, "D008297": 3}
    similarity = KailinSimilarity(MeshHierarchy(tree, names={"Humans": "D006801", "Male": "D008297"}), counts)
    assert score(similarity, ["leaf", "D006801"], "Humans") == 0.5
    assert score(similarity, ["leaf", "D008297", "unknown"], "leaf") == 1
    sides = [["D008297", "Male"], []], [["leaf"], ["leaf"]]
    assert np.isnan(similarity.best_match_averages(*sides)).all()
    assert np.isnan(similarity.best_match_averages(*sides[::-1])).all()


def test_the_counts_are_those_of_the_information_content() -> None:
    hierarchy = MeshHierarchy(DEEP)
    carried = [["leaf"], ["aunt"], ["top", "aunt"], ["other leaf"]]
    counted = count_annotations(hierarchy, [pl.Series(carried)])
    table = information_content(
        pl.DataFrame({"descriptor_ui": list(DEEP), "name": list(DEEP)}), hierarchy, counted
    )
    by_hand = {"top": 3, "mother": 1, "leaf": 1, "aunt": 2, "other": 1, "other leaf": 1}
    found, expected = (
        similarity.best_match_averages([["top"], ["leaf"], ["aunt"]], [["mother"]] * 3)
        for similarity in (
            KailinSimilarity.from_table(hierarchy, table),
            KailinSimilarity(hierarchy, by_hand),
        )
    )
    assert (found == expected).all()
    assert found.min() > 0


def test_without_citations_only_the_same_is_alike() -> None:
    similarity = KailinSimilarity(MeshHierarchy(DEEP), dict.fromkeys(DEEP, 0))
    assert score(similarity, ["leaf", "mother"], ["mother", "top"]) == 0.25


@pytest.mark.parametrize("seed", range(8))
def test_on_any_small_tree_it_equals_the_formula_one_by_one(seed: int) -> None:
    chance = random.Random(seed)
    parts = ["100", "200"]
    numbers = {
        ".".join([chance.choice(["C04", "D01", "E01"]), *chance.choices(parts, k=chance.randrange(5))])
        for _ in range(60)
    }
    uis = [f"D{number}" for number in range(30)]  # some without a tree number, some parents held by nobody
    tree: dict[str, list[str]] = {ui: [] for ui in uis}
    for number in sorted(numbers):
        tree[chance.choice(uis)].append(number)
    hierarchy = MeshHierarchy(tree)
    counts = {ui: chance.choice([0, 1, 10, 10_000]) for ui in uis}
    lists = [chance.sample(uis, chance.randrange(7)) for _ in range(120)]
    naive = PublishedFormula(hierarchy, counts)
    expected = [naive.average(a, b) for a, b in zip(lists[:60], lists[60:], strict=True)]
    found = KailinSimilarity(hierarchy, counts).best_match_averages(lists[:60], lists[60:])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert np.nanmin(found) >= 0
    assert np.nanmax(found) <= 1


def test_on_the_real_tree_it_equals_the_formula_one_by_one(real_data: Path) -> None:
    hierarchy = mesh_2024.tree(real_data)
    chance = random.Random(7)
    inner = [ui for ui in hierarchy.uis if hierarchy.descendants(ui)]  # all pairs of leaves score 0
    near = [ui for ui in inner if "C04" in hierarchy.branches(ui)]
    lists = [
        [*chance.sample(hierarchy.uis, 4), *chance.sample(inner, 4), *chance.sample(near, 4), "D006801"]
        for _ in range(80)
    ]
    counts = count_annotations(hierarchy, [pl.Series(lists)]).by_descriptor
    naive = PublishedFormula(hierarchy, counts)
    expected = [naive.average(a, b) for a, b in zip(lists[:40], lists[40:], strict=True)]
    similarity = KailinSimilarity(hierarchy, counts)
    found = similarity.best_match_averages(lists[:40], lists[40:])
    assert np.abs(found - expected).max() <= 1e-12
    assert np.unique(found).size > 30
    assert found == pytest.approx(similarity.best_match_averages(lists[40:], lists[:40]), abs=1e-15)


def test_more_pairs_than_a_block_are_scored_as_one_by_one(
    deep: KailinSimilarity, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [["leaf"], ["leaf"], ["leaf", "top"], [], ["other"], ["mother", "leaf"]]
    contexts = [["mother"], ["top"], ["aunt", "mother"], ["top"], ["other leaf"], ["leaf"]]
    whole = deep.best_match_averages(sources, contexts)
    monkeypatch.setattr("mkailin_assets.mesh.similarity._BLOCK", 2)
    np.testing.assert_array_equal(deep.best_match_averages(sources, contexts), whole)
    assert deep.best_match_averages([], []).shape == (0,)
    with pytest.raises(ValueError, match="1 sources cannot be paired with 0 contexts"):
        deep.best_match_averages([["leaf"]], [])
