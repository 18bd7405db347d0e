"""Which of two questions is preferred, and when a pair teaches nothing."""

from typing import Any

import dagster as dg
import polars as pl
import pytest
from pydantic import ValidationError

from mkailin_assets.mesh.hierarchy import MeshHierarchy
from mkailin_assets.mesh.kailin import KailinSimilarity
from mkailin_assets.mesh.similarity import HeadingSimilarity
from mkailin_assets.mesh.tables import MeshDescriptor, MeshInformationContent
from mkailin_assets.preferences import checks
from mkailin_assets.preferences.assets import cold_start_preferences
from mkailin_assets.preferences.cold_start import (
    ColdStartRules,
    DocumentSimilarity,
    WithMentions,
    prefer_by_mesh,
    question_scores,
    similarity_of,
)
from mkailin_assets.preferences.mentions import Mentions
from mkailin_assets.preferences.tables import ColdStartPreference
from mkailin_assets.questions.tables import CandidateContexts

# Two neoplasms under one node, a third beside it, a mental disorder far away, and a heading without a place.
TREE = {
    "D000001": ["C04"],
    "D000002": ["C04.100"],
    "D000003": ["C04.100.200"],
    "D000004": ["C04.100.300"],
    "D000005": ["C04.500"],
    "D000006": ["F03"],
    "D000007": [],
}
NAMES = {
    "Tumour": "D000002",
    "Breast Neoplasms": "D000003",
    "Cancer, Breast": "D000003",
    "Neoplasms": "D000001",
}
HIERARCHY = MeshHierarchy(TREE, NAMES)
UNPLACED = "the source has no heading with a place in the hierarchy"
SIMILARITY = HeadingSimilarity(HIERARCHY, HIERARCHY.intrinsic_ic(), "lin")


def candidate(pmid: int, role: str, *found: list[str], **changes: Any) -> dict[str, Any]:
    """A question of a citation on D000003, with a context for each list of headings."""
    contexts = [
        {
            "rank": rank,
            "pmid": 900 + rank,
            "content_hash": "c",
            "score": 1.0,
            "found_by": "both",
            "heading_uis": uis,
        }
        for rank, uis in enumerate(found, 1)
    ]
    row = {
        "pmid": pmid,
        "role": role,
        "branch": "C04",
        "question": f"Does the {role} generator ask about {pmid}?",
        "heading_uis": ["D000003"],
        "contexts": contexts,
        "source_rank": 1,
        "failure": None,
    }
    return row | changes


def candidates(*rows: dict[str, Any]) -> pl.DataFrame:
    table = pl.DataFrame(list(rows), schema=CandidateContexts.create_empty().schema)
    return CandidateContexts.validate(table)


def preferred(
    *rows: dict[str, Any], similarity: DocumentSimilarity = SIMILARITY, **rules: Any
) -> pl.DataFrame:
    table = prefer_by_mesh(candidates(*rows), similarity, ColdStartRules(**rules), "MeSH 2024, 10 citations")
    return ColdStartPreference.validate(table)


def content() -> pl.DataFrame:
    """Table MeshInformationContent of 9 citations, each heading on one."""
    ic = HIERARCHY.intrinsic_ic()
    rows = [
        {"descriptor_ui": ui, "name": ui, "citations": HIERARCHY.descendants(ui) + 1, "all_citations": 9}
        | {"corpus_ic": 0.5, "intrinsic_ic": ic[ui]}
        for ui in TREE
    ]
    return pl.DataFrame(rows, schema=MeshInformationContent.create_empty().schema)


def test_the_question_whose_contexts_are_nearer_in_mesh_is_chosen() -> None:
    row = preferred(candidate(1, "domain", ["D000005"]), candidate(1, "general", ["D000004"])).row(
        0, named=True
    )
    assert (row["chosen_role"], row["rejected_role"]) == ("general", "domain")
    assert row["chosen_question"] == "Does the general generator ask about 1?"
    assert row["chosen_score"] == SIMILARITY.best_match_average(["D000003"], ["D000004"])
    assert row["rejected_score"] == SIMILARITY.best_match_average(["D000003"], ["D000005"])
    assert row["margin"] == pytest.approx(row["chosen_score"] - row["rejected_score"])
    assert row["kept"]
    assert row["reason"] is None
    assert (row["measure"], row["ic_source"]) == ("lin", "corpus")
    assert row["mode"] == "corrected"
    assert row["ic_snapshot"] == "MeSH 2024, 10 citations"


def test_the_headings_that_a_question_names_count_as_so_many_contexts() -> None:
    vague = candidate(1, "domain", ["D000005"], ["D000005"], question="Does it help?")
    plain = candidate(1, "general", ["D000005"], ["D000005"], question="Does breast cancer recur?")
    with_cancer = MeshHierarchy(TREE, {**NAMES, "Breast Cancer": "D000003"})
    similarity = WithMentions(SIMILARITY, Mentions(with_cancer.names), 3.0)
    row = preferred(vague, plain, similarity=similarity, mention_weight=3).row(0, named=True)
    far = SIMILARITY.best_match_average(["D000003"], ["D000005"])
    assert row["chosen_role"] == "general"
    assert row["chosen_score"] == pytest.approx((2 * far + 3 * 1) / 5)
    assert row["rejected_score"] == pytest.approx(far)
    assert row["mention_weight"] == 3


def test_a_question_that_found_nothing_has_no_score_whatever_it_names() -> None:
    similarity = WithMentions(SIMILARITY, Mentions(NAMES), 2.0)
    asks = {"question": "Do breast neoplasms grow?"}
    unfound, unscorable = candidate(1, "domain", **asks), candidate(1, "general", ["D000007"], [], **asks)
    assert question_scores(candidates(unfound, unscorable), similarity).is_empty()


def test_a_name_is_found_as_whole_words_in_any_case_and_the_longest_counts() -> None:
    named = Mentions({**NAMES, "Tumour Markers": "D000005"}).named_in(
        [
            "Do tumour markers tell?",
            "Are BREAST-NEOPLASMS neoplasms?",
            "Is cancer (breast) a tumour, and the tumour a problem?",
            "Are tumours seen?",
            "",
            "?!",
        ]
    )
    assert named == [["D000005"], ["D000003", "D000001"], ["D000003", "D000002"], [], [], []]
    assert Mentions({}).named_in(["Tumour?"]) == [[]]


def test_rules_make_the_similarity_they_name() -> None:
    pair = (["D000003"], ["D000004"])

    def score(**rules: Any) -> float:
        similarity = similarity_of(HIERARCHY, content(), ColdStartRules(**rules))
        return float(similarity.best_match_averages(*[[side] for side in pair])[0])

    assert score(ic_source="intrinsic") == SIMILARITY.best_match_average(*pair)
    assert score(ic_source="corpus", measure="resnik") == 0.5
    assert isinstance(similarity_of(HIERARCHY, content(), ColdStartRules()), WithMentions)
    assert isinstance(
        similarity_of(HIERARCHY, content(), ColdStartRules(mention_weight=0)), HeadingSimilarity
    )


def test_in_the_published_formula_measure_and_ic_do_not_apply_and_the_row_says_so() -> None:
    rules = ColdStartRules(mode="kailin_compat", measure="resnik", ic_source="intrinsic")
    similarity = similarity_of(HIERARCHY, content(), rules)
    assert isinstance(similarity, KailinSimilarity)
    pair = [candidate(1, "domain", ["D000003"]), candidate(1, "general", ["D000006"])]
    row = preferred(*pair, similarity=similarity, mode="kailin_compat", measure="resnik").row(0, named=True)
    assert (row["chosen_role"], row["chosen_score"], row["rejected_score"]) == ("domain", 1, 0)
    about = [row[name] for name in ("mode", "measure", "ic_source", "mention_weight")]
    assert about == ["kailin_compat", "kailin", "kailin", 0]


def test_other_rules_have_another_version() -> None:
    versions = {
        ColdStartRules(**rules).version() for rules in ({}, {"margin": 0.02}, {"mode": "kailin_compat"})
    }
    assert len(versions) == 3
    assert ColdStartRules().version() == ColdStartRules(margin=0.01).version()


@pytest.mark.parametrize("rules", [{"mode": "published"}, {"mention_weight": -1}, {"measure": "kailin"}])
def test_rules_that_do_not_exist_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ColdStartRules(**rules)


def test_a_score_is_the_mean_over_the_contexts_that_have_scorable_headings() -> None:
    with_blanks = candidate(1, "domain", ["D000003"], [], ["D000006"], ["D000007"])
    row = preferred(with_blanks, candidate(1, "general", ["D000006"])).row(0, named=True)
    assert row["chosen_score"] == pytest.approx(0.5)
    assert row["rejected_score"] == 0


@pytest.mark.parametrize(
    ("domain", "general", "reason", "chosen"),
    [
        pytest.param(
            {"question": None, "failure": "no statement", "contexts": []},
            {"question": None, "failure": "no conclusion", "contexts": []},
            "neither generator wrote a question",
            None,
            id="no question",
        ),
        pytest.param(
            {"question": None, "failure": "no statement", "contexts": []},
            {},
            "only the general generator wrote a question",
            "general",
            id="one question",
        ),
        pytest.param(
            {"question": "Is it so?"},
            {"question": "is it  SO"},
            "both generators wrote the same question",
            "domain",
            id="same question",
        ),
        pytest.param(
            {"heading_uis": ["D000007"]},
            {"heading_uis": ["D000007"]},
            UNPLACED,
            "domain",
            id="source not scorable",
        ),
        pytest.param(
            {"heading_uis": []}, {"heading_uis": []}, UNPLACED, "domain", id="source without headings"
        ),
        pytest.param(
            {"heading_uis": ["D999999", "Unheard Of"]},
            {"heading_uis": ["D999999", "Unheard Of"]},
            UNPLACED,
            "domain",
            id="source unknown to the release",
        ),
        pytest.param(
            {"contexts": []},
            {"contexts": [], "failure": "nothing found"},
            "no context of either question has a scorable heading",
            "domain",
            id="no scorable context",
        ),
        pytest.param(
            {"contexts": []},
            {},
            "no context of the domain question has a scorable heading",
            "general",
            id="one without scorable context",
        ),
        pytest.param({}, {}, "tie: the scores are within 0.01", "domain", id="tie"),
    ],
)
def test_a_pair_that_teaches_nothing_is_dropped_with_its_reason_and_what_can_be_asked_is_still_chosen(
    domain: dict[str, Any], general: dict[str, Any], reason: str, chosen: str | None
) -> None:
    found = ["D000004"]
    row = preferred(candidate(1, "general", found, **general), candidate(1, "domain", found, **domain)).row(
        0, named=True
    )
    assert not row["kept"]
    assert row["reason"] == reason
    assert row["chosen_role"] == chosen
    assert (row["chosen_question"] is None) == (chosen is None)


def test_scores_outside_the_window_are_no_preference() -> None:
    pair = [candidate(1, "domain", ["D000003"]), candidate(1, "general", ["D000006"])]
    assert preferred(*pair)["kept"].all()
    assert preferred(*pair, highest=0.99)["reason"].to_list() == ["a score lies outside 0 to 0.99"]
    assert preferred(*pair, lowest=0.01)["reason"].to_list() == ["a score lies outside 0.01 to 1"]


def test_the_margin_decides_what_a_tie_is() -> None:
    pair = [candidate(1, "domain", ["D000003"]), candidate(1, "general", ["D000004"])]
    assert preferred(*pair, margin=0)["kept"].all()
    assert not preferred(*pair, margin=1)["kept"].any()
    equal = [candidate(1, role, ["D000004"]) for role in ("domain", "general")]
    assert preferred(*equal, margin=0)["reason"].to_list() == ["tie: the scores are within 0"]


def test_every_citation_has_one_row_whatever_the_order_of_its_candidates() -> None:
    rows = [candidate(pmid, role, ["D000004"]) for pmid in (3, 1, 2) for role in ("general", "domain")]
    rows[0]["contexts"], rows[3]["contexts"] = [], []
    forwards, backwards = preferred(*rows), preferred(*reversed(rows))
    assert forwards["pmid"].to_list() == [1, 2, 3]
    assert forwards.equals(backwards)


def test_a_branch_without_candidates_has_an_empty_table() -> None:
    empty = preferred()
    assert empty.is_empty()
    assert empty.schema == ColdStartPreference.create_empty().schema


def test_the_asset_scores_with_the_information_content_that_is_configured() -> None:
    descriptors = pl.DataFrame(
        [
            {"descriptor_ui": ui, "name": ui, "tree_numbers": numbers, "release_year": 2024}
            for ui, numbers in TREE.items()
        ],
        schema=MeshDescriptor.create_empty().schema,
    )
    pair = candidates(candidate(1, "domain", ["D000005"]), candidate(1, "general", ["D000004"]))

    def materialized(**rules: Any) -> dict[str, Any]:
        output = cold_start_preferences(pair, descriptors, content(), mesh_rules=ColdStartRules(**rules))
        assert isinstance(output, dg.Output)
        assert output.metadata["kept"].value == int(output.value["kept"].sum())
        return ColdStartPreference.validate(output.value).row(0, named=True)

    by_tree = materialized(ic_source="intrinsic")
    assert by_tree["chosen_score"] == SIMILARITY.best_match_average(["D000003"], ["D000004"])
    assert by_tree["ic_snapshot"] == "MeSH 2024, 9 citations"
    flat = materialized(ic_source="corpus", measure="resnik")
    assert (flat["chosen_score"], flat["rejected_score"]) == (0.5, 0.5)
    assert (flat["measure"], flat["ic_source"]) == ("resnik", "corpus")


GOOD = preferred(candidate(1, "domain", ["D000003"]), candidate(1, "general", ["D000006"]))


@pytest.mark.parametrize(
    ("check", "broken"),
    [
        (checks.chosen_question_scores_at_least_as_high, {"rejected_score": 1.1}),
        (checks.chosen_question_scores_at_least_as_high, {"chosen_score": None}),
        (checks.mesh_scores_lie_between_0_and_1, {"chosen_score": 4.2}),
        (checks.mesh_scores_lie_between_0_and_1, {"rejected_score": float("nan")}),
        (checks.dropped_pairs_have_a_reason, {"kept": False}),
        (checks.dropped_pairs_have_a_reason, {"reason": "tie"}),
        (checks.dropped_pairs_have_a_reason, {"rejected_score": None}),
        (checks.some_preferences_are_kept, {"kept": False}),
    ],
)
def test_a_check_passes_on_sound_preferences_and_fails_on_broken_ones(
    check: dg.AssetChecksDefinition, broken: dict[str, Any]
) -> None:
    assert check(GOOD).passed
    changed = GOOD.with_columns(**{name: pl.lit(value, GOOD.schema[name]) for name, value in broken.items()})
    assert not check(changed).passed


def test_a_branch_without_a_preference_is_a_warning_only() -> None:
    result = checks.some_preferences_are_kept(ColdStartPreference.create_empty())
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN
