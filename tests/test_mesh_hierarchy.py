"""Who is above whom in MeSH, and how much each descriptor says."""

import math
from collections.abc import Sequence
from pathlib import Path

import mesh_2024
import polars as pl
import pytest

from mkailin_assets.mesh.hierarchy import (
    CHECK_TAGS,
    AnnotationCounts,
    MeshHierarchy,
    UnknownDescriptor,
    corpus_ic,
    count_annotations,
    current_headings,
    information_content,
    snapshot,
)
from mkailin_assets.mesh.tables import MeshInformationContent
from mkailin_assets.pubmed.tables import CurrentCitation, PubmedRecord

# `shared` is under `left` and `right`; `right` itself also hangs under `far`, which no prefix of `leaf` says.
SMALL = {
    "left": ["A01"],
    "right": ["A02", "B01.300"],
    "far": ["B01"],
    "shared": ["A01.100", "A02.100"],
    "leaf": ["A01.100.500"],
    "placeless": [],
}


def lists(*headings: Sequence[str | None] | None) -> pl.Series:
    return pl.Series(headings, dtype=pl.List(pl.String))


@pytest.fixture
def descriptors_2024(real_data: Path) -> pl.DataFrame:
    return mesh_2024.descriptors(real_data)


@pytest.fixture
def tree_2024(real_data: Path) -> MeshHierarchy:
    return mesh_2024.tree(real_data)


@pytest.fixture
def small() -> MeshHierarchy:
    return MeshHierarchy(SMALL)


def test_ancestors_follow_all_tree_numbers_of_every_ancestor(small: MeshHierarchy) -> None:
    assert small.ancestors("leaf") == {"leaf", "shared", "left", "right", "far"}
    assert small.ancestors("far") == {"far"}
    assert small.ancestors("placeless") == {"placeless"}


def test_descendants_are_counted_once_each(small: MeshHierarchy) -> None:
    counts = {ui: small.descendants(ui) for ui in SMALL}
    assert counts == {"left": 2, "right": 2, "far": 3, "shared": 1, "leaf": 0, "placeless": 0}


def test_depth_is_the_shortest_way_down(small: MeshHierarchy) -> None:
    depths = {ui: small.depth(ui) for ui in SMALL}
    assert depths == {"left": 0, "right": 0, "far": 0, "shared": 1, "leaf": 2, "placeless": None}


def test_branches_are_second_level_codes_by_prefix(small: MeshHierarchy) -> None:
    assert small.branches("right") == ("A02", "B01")
    assert small.branches("leaf") == ("A01",)
    assert small.branches("placeless") == ()


def test_a_descriptor_of_another_year_is_named(small: MeshHierarchy) -> None:
    assert "D999999" not in small
    assert "leaf" in small
    for ask in (small.ancestors, small.descendants, small.depth, small.tree_numbers, small.branches):
        with pytest.raises(UnknownDescriptor, match="D999999"):
            ask("D999999")


def test_two_descriptors_cannot_hold_one_tree_number() -> None:
    with pytest.raises(ValueError, match="A01 is held by a and by b"):
        MeshHierarchy({"a": ["A01"], "b": ["A01"]})


def test_a_cycle_in_a_release_ends() -> None:
    cyclic = MeshHierarchy({"a": ["A01", "B01.100"], "b": ["B01", "A01.100"]})
    assert cyclic.ancestors("a") == cyclic.ancestors("b") == {"a", "b"}


def test_check_tags_and_headings_without_place_are_not_scored() -> None:
    hierarchy = MeshHierarchy({"D006801": ["B01"], "D008297": [], "D000544": ["C10"]})
    given = ["D000544", "D006801", None, "D008297", "D999999", "D000544"]
    assert hierarchy.scorable(given) == ["D000544"]
    assert hierarchy.is_check_tag("D006801")
    assert not hierarchy.is_check_tag("D000544")


def test_check_tags_are_called_as_nlm_calls_them(descriptors_2024: pl.DataFrame) -> None:
    names = dict(descriptors_2024.select("descriptor_ui", "name").iter_rows())
    assert {ui: names[ui] for ui in CHECK_TAGS} == dict(CHECK_TAGS)


def test_ancestors_on_the_real_tree_are_the_transitive_closure(
    descriptors_2024: pl.DataFrame, tree_2024: MeshHierarchy
) -> None:
    holder = {
        number: ui
        for ui, numbers in descriptors_2024.select("descriptor_ui", "tree_numbers").iter_rows()
        for number in numbers
    }
    beyond_prefixes = 0
    for ui in tree_2024.uis:
        numbers = tree_2024.tree_numbers(ui)
        parents = {holder[number.rpartition(".")[0]] for number in numbers if "." in number}
        assert tree_2024.ancestors(ui) == {ui}.union(*map(tree_2024.ancestors, parents))
        parts = [number.split(".") for number in numbers]
        prefixes = {holder[".".join(part[:end])] for part in parts for end in range(1, len(part) + 1)}
        beyond_prefixes += tree_2024.ancestors(ui) > prefixes
    assert beyond_prefixes > 5_000  # why string prefixes will not do


def test_intrinsic_ic_lies_in_0_to_1_and_never_falls_downwards(tree_2024: MeshHierarchy) -> None:
    ic = tree_2024.intrinsic_ic()
    assert min(ic.values()) >= 0
    assert max(ic.values()) == 1
    assert all(ic[up] <= ic[ui] for ui in tree_2024.uis for up in tree_2024.ancestors(ui))
    neoplasms = "D009369"
    expected = 1 - math.log(1 + tree_2024.descendants(neoplasms)) / math.log(30_764)
    assert ic[neoplasms] == pytest.approx(expected, abs=1e-12)


def test_intrinsic_ic_of_a_root_of_all_is_0_and_of_a_lone_descriptor_1() -> None:
    family = MeshHierarchy({"root": ["A01"], **{f"leaf{n}": [f"A01.{n}"] for n in range(48)}})
    assert family.intrinsic_ic()["root"] == 0
    assert dict(MeshHierarchy({"alone": ["A01"]}).intrinsic_ic()) == {"alone": 1.0}


def test_corpus_ic_never_falls_downwards_on_the_real_tree(tree_2024: MeshHierarchy) -> None:
    headings = [list(tree_2024.uis[start::997]) for start in range(997)]
    counted = count_annotations(tree_2024, [lists(*headings)])
    ic = corpus_ic(counted.by_descriptor, counted.citations)
    assert min(ic.values()) >= 0
    assert max(ic.values()) <= 1
    assert all(ic[up] <= ic[ui] for ui in tree_2024.uis for up in tree_2024.ancestors(ui))


def test_a_citation_counts_once_for_each_ancestor_of_its_headings(small: MeshHierarchy) -> None:
    counted = count_annotations(
        small, [lists(["leaf", "shared", "left"], ["right"]), lists(["leaf", "leaf"])]
    )
    assert counted.citations == 3
    assert counted.by_descriptor == {"left": 2, "right": 3, "far": 3, "shared": 2, "leaf": 2, "placeless": 0}


def test_headings_and_citations_that_cannot_be_counted_are_told(small: MeshHierarchy) -> None:
    citations = lists(["leaf", "D999999"], ["D999999"], [], None)
    counted = count_annotations(small, [citations, lists()])
    assert (counted.citations, counted.without_headings) == (1, 3)
    assert counted.unknown == {"D999999": 2}


def test_a_heading_without_ui_counts_by_its_name(tree_2024: MeshHierarchy) -> None:
    by_ui = count_annotations(tree_2024, [lists(["D000544"])])
    assert count_annotations(tree_2024, [lists(["Alzheimer Disease"])]) == by_ui
    assert tree_2024.scorable(["Alzheimer Disease", "D000544", "Nothing of MeSH"]) == ["D000544"]


def test_counts_do_not_depend_on_the_chunks(tree_2024: MeshHierarchy) -> None:
    headings = lists(*[list(tree_2024.uis[start::2_500]) for start in range(2_500)])
    whole = count_annotations(tree_2024, [headings])
    assert count_annotations(tree_2024, [headings.head(700), headings.slice(700)]) == whole


def test_corpus_ic_is_the_formula() -> None:
    ic = corpus_ic({"all": 99, "some": 9, "none": 0}, 99)
    assert ic == pytest.approx({"all": 0.0, "some": 0.5, "none": 1.0}, abs=1e-12)
    assert corpus_ic({"a": 0}, 0) == {"a": 0.0}


def test_only_the_latest_record_of_a_current_citation_is_counted(small: MeshHierarchy) -> None:
    def record(pmid: int, position: int, file: str, ui: str) -> dict[str, object]:
        heading = {"ui": ui, "name": ui, "major": False, "qualifiers": []}
        return {
            "record": "citation",
            "pmid": pmid,
            "position": position,
            "pubmed_file": file,
            "headings": [heading],
        }

    schema = PubmedRecord.create_empty().schema
    first = [record(1, 0, "f1", "left"), record(2, 1, "f1", "left"), record(3, 2, "f1", "left")]
    second = [record(1, 0, "f2", "leaf")]
    files = {name: pl.LazyFrame(rows, schema=schema) for name, rows in {"f1": first, "f2": second}.items()}
    current = pl.DataFrame(
        [
            {"pmid": 1, "state": "current", "pubmed_file": "f2", "position": 0},
            {"pmid": 2, "state": "retracted", "pubmed_file": "f1", "position": 1},
            {"pmid": 3, "state": "current", "pubmed_file": "f1", "position": 2},
        ],
        schema=CurrentCitation.create_empty().schema,
    )
    headings = [series.to_list() for series in current_headings(current, files)]
    assert headings == [[["left"]], [["leaf"]]]


def test_information_content_has_a_row_per_descriptor(small: MeshHierarchy) -> None:
    descriptors = pl.DataFrame({"descriptor_ui": list(SMALL), "name": [ui.title() for ui in SMALL]})
    counted = count_annotations(small, [lists(["leaf"], ["left"], ["far"])])
    content = MeshInformationContent.validate(information_content(descriptors, small, counted))
    assert content["descriptor_ui"].to_list() == list(SMALL)
    assert content.row(0, named=True) == {
        "descriptor_ui": "left",
        "name": "Left",
        "citations": 2,
        "all_citations": 3,
        "descendants": 2,
        "corpus_ic": pytest.approx(-math.log(3 / 4) / math.log(4), abs=1e-12),
        "intrinsic_ic": pytest.approx(1 - math.log(3) / math.log(6), abs=1e-12),
        "depth": 0,
    }


def test_a_snapshot_is_kept_while_the_corpus_and_the_release_are_about_the_same(small: MeshHierarchy) -> None:
    descriptors = pl.DataFrame({"descriptor_ui": list(small.uis), "name": list(small.uis)})

    def content(citations: int, kept: pl.DataFrame = descriptors) -> pl.DataFrame:
        by_descriptor = dict.fromkeys(small.uis, citations // 2)
        return information_content(kept, small, AnnotationCounts(by_descriptor, citations, 0, citations, {}))

    def is_kept(earlier: pl.DataFrame, now: pl.DataFrame) -> bool:
        return snapshot(earlier, now, 0.1) is earlier

    assert is_kept(content(100), content(110))
    assert is_kept(content(100), content(90))
    assert not is_kept(content(100), content(111))
    assert not is_kept(content(100), content(89))
    assert not is_kept(content(100).clear(), content(100))
    assert not is_kept(content(0), content(1))
    assert not is_kept(content(100), content(100, descriptors.with_columns(name=pl.lit("renamed"))))
    assert not is_kept(content(100).with_columns(pl.col("corpus_ic") / 2), content(100))
    assert not is_kept(content(100).with_columns(pl.col("depth") + 1), content(100))
    assert not is_kept(content(100).drop("depth"), content(100))
    now = content(100)
    assert snapshot(None, now, 0.1) is now
