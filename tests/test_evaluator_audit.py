"""The audit of the evaluators: do they tell a document's real question from another's?"""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from mesh_2024 import descriptors, tree

from mkailin_assets.evaluation.audit import (
    NO_BRANCH,
    Judgement,
    audited_sets,
    cold_start_judgements,
    evaluator_audit,
    pairs_to_judge,
    trial_contexts,
    trials_of,
    verdicts_by_score,
)
from mkailin_assets.evaluation.judgements import JudgedSet
from mkailin_assets.evaluation.pubmedqa import Benchmark, read_pubmedqa
from mkailin_assets.evaluation.tables import DISTRACTORS, EvaluatorAudit
from mkailin_assets.mesh.hierarchy import MeshHierarchy, count_annotations, information_content
from mkailin_assets.mesh.tables import MeshDescriptor
from mkailin_assets.preferences.cold_start import ColdStartRules, question_scores, similarity_of
from mkailin_assets.preferences.evaluator import evaluator_text
from mkailin_assets.questions.candidates import document_of
from mkailin_resources.embeddings.corpus import CorpusEncoder
from mkailin_resources.index import CITATION, ContextStore
from mkailin_resources.searcher import Searcher
from mkailin_resources.storage import Storage

# Two diseases, two treatments; the last has no place.
TREE = {"D1": ["C04"], "D2": ["C04.1"], "D3": ["C04.2"], "D4": ["E02"], "D5": ["E02.1"], "D6": []}
NAMES = dict(zip(("Neoplasms", "Melanoma", "Glioma", "Therapy", "Surgery", "Nowhere"), TREE, strict=True))
HIERARCHY = MeshHierarchy(TREE, NAMES)
SUBJECTS = {"C04": ("melanoma", "D2"), "E02": ("surgery", "D5")}
SOURCE = "pubmedqa"


def judged(*asking: tuple[int, str | None, str], others: int = 3) -> JudgedSet:
    """Documents by PMID, branch and question, and others about melanoma and surgery that ask nothing."""
    branches = {pmid: branch for pmid, branch, _ in asking}
    branches |= {900 + place: list(SUBJECTS)[place % 2] for place in range(others)}
    rows = []
    for pmid, branch in branches.items():
        word, ui = SUBJECTS.get(branch or "", ("nothing", "D6"))
        title = f"On {word}" if pmid >= 900 else ""
        text = f"{title}\nThis is about {word} and the number {pmid}."
        rows.append({"pmid": pmid, "branch": branch, "title": title, "text": text, "heading_uis": [ui]})
    documents = pl.DataFrame([row | {"content_hash": "c", "languages": []} for row in rows], schema=CITATION)
    questions = {pmid: question for pmid, _, question in asking}
    return JudgedSet("tiny", documents, questions, {pmid: {pmid: 1} for pmid in questions}, {})


ASKING = [
    (1, "C04", "Does melanoma come back as number 1?"),
    (2, "C04", "Is melanoma number 2 rare?"),
    (3, "E02", "Is surgery number 3 safe?"),
    (4, "E02", "Does surgery number 4 help?"),
    (5, "E02", "Is surgery number 5 needed?"),
]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return Storage(root=str(tmp_path_factory.mktemp("storage")))


def searcher(of: JudgedSet, storage: Storage, folder: Path) -> Searcher:
    encoder = CorpusEncoder.learn(of.documents["text"].to_list())
    return ContextStore(storage=storage, retriever="lexical").over(of.documents, encoder, folder)


def scores(**by_role: dict[int, float | None]) -> pl.DataFrame:
    rows = [
        {"pmid": pmid, "role": role.replace("_", " "), "score": score}
        for role, of_role in by_role.items()
        for pmid, score in of_role.items()
    ]
    return pl.DataFrame(rows, schema={"pmid": pl.Int64, "role": pl.String, "score": pl.Float64})


# Trials


def test_each_question_stands_against_one_of_another_branch_and_of_the_same() -> None:
    of = judged(*ASKING)
    trials = trials_of(of, seed=1)
    branches = {pmid: branch for pmid, branch, _ in ASKING}
    assert trials.select("pmid", "distractor").rows() == [
        (pmid, distractor) for pmid in branches for distractor in DISTRACTORS
    ]
    assert trials["reason"].null_count() == trials.height
    for row in trials.iter_rows(named=True):
        same = branches[row["other_pmid"]] == row["branch"]
        assert row["other_pmid"] != row["pmid"]
        assert same == (row["distractor"] == "same branch")
        assert of.questions[row["pmid"]] == row["own_question"] != row["other_question"]
        assert of.questions[row["other_pmid"]] == row["other_question"]


def test_trials_depend_on_the_seed_alone_and_not_on_the_order_of_the_documents() -> None:
    many = [(pmid, list(SUBJECTS)[pmid % 2], f"What of number {pmid}?") for pmid in range(1, 41)]
    trials = trials_of(judged(*many), seed=1)
    assert trials.equals(trials_of(judged(*reversed(many)), seed=1))
    assert not trials.equals(trials_of(judged(*many), seed=2))


def test_a_document_without_such_another_question_is_no_trial_and_says_why() -> None:
    same = (7, "E02", "is surgery number 3  SAFE?")
    trials = trials_of(judged(ASKING[2], same, ASKING[0], (9, None, "Does nothing ask this?")), seed=1)
    reasons = {(row["pmid"], row["distractor"]): row["reason"] for row in trials.iter_rows(named=True)}
    assert reasons == {
        (1, "other branch"): None,
        (1, "same branch"): "no document of the same branch asks something else",
        (3, "other branch"): None,
        (3, "same branch"): "no document of the same branch asks something else",
        (7, "other branch"): None,
        (7, "same branch"): "no document of the same branch asks something else",
        (9, "other branch"): NO_BRANCH,
        (9, "same branch"): NO_BRANCH,
    }
    assert trials.filter(pl.col("reason").is_not_null())["other_pmid"].null_count() == 5
    alone = trials_of(judged(*ASKING[:2]), seed=1).filter(distractor="other branch")
    assert set(alone["reason"]) == {"no document of another branch asks something else"}
    assert trials_of(judged(), seed=1).is_empty()


# Contexts and verdicts


@pytest.fixture(scope="module")
def searched(storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, pl.DataFrame]:
    of = judged(*ASKING)
    trials = trials_of(of, seed=1)
    found = searcher(of, storage, tmp_path_factory.mktemp("index"))
    return trials, trial_contexts(trials, of, found, 3)


def test_a_question_is_searched_for_beside_its_own_document_as_candidates_are(
    searched: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    trials, contexts = searched
    assert contexts.height == 5 * 3
    assert contexts["failure"].null_count() == contexts.height
    for row in contexts.iter_rows(named=True):
        found = [context["pmid"] for context in row["contexts"]]
        assert found
        assert row["pmid"] not in found
        assert row["heading_uis"] == [SUBJECTS[row["branch"]][1]]
    own = contexts.filter(role="own")
    assert own["source_rank"].to_list() == [1] * 5
    others = trials.join(contexts, left_on=["pmid", "distractor"], right_on=["pmid", "role"])
    for row in others.iter_rows(named=True):
        assert row["other_pmid"] == row["contexts"][0]["pmid"]
        assert row["question"] == row["other_question"]


def test_the_higher_score_is_preferred_a_score_to_none_and_equal_ones_decide_nothing() -> None:
    trials = trials_of(judged(*ASKING), seed=1)
    given = scores(
        own={1: 0.5, 2: 0.5, 3: 0.5, 4: None},
        other_branch={1: 0.4, 2: 0.6, 3: 0.5, 4: 0.1},
        same_branch={1: None, 2: 0.5, 5: float("nan")},
    )
    told = verdicts_by_score(trials, given)
    verdicts = {(pmid, distractor): preferred for pmid, distractor, preferred in told.iter_rows()}
    assert [verdicts[pmid, "other branch"] for pmid in range(1, 6)] == [
        "first",
        "second",
        None,
        "second",
        None,
    ]
    assert [verdicts[pmid, "same branch"] for pmid in range(1, 6)] == ["first", None, "first", None, None]
    (other, same) = evaluator_audit(SOURCE, trials, [Judgement("it", told)]).to_dicts()
    assert (other["trials"], other["undecided"], other["accuracy"]) == (5, 2, 0.2)
    assert (same["trials"], same["undecided"], same["accuracy"]) == (5, 3, 0.4)
    assert other["low"] < 0.2 < other["high"]


def test_a_judge_that_always_ties_or_says_nothing_is_never_right() -> None:
    trials = trials_of(judged(*ASKING), seed=1)
    equal = dict.fromkeys(range(1, 6), 0.5)
    ties = verdicts_by_score(trials, scores(own=equal, other_branch=equal, same_branch=equal))
    silent = Judgement("silent", ties.head(0))
    audit = EvaluatorAudit.validate(evaluator_audit(SOURCE, trials, [Judgement("ties", ties), silent]))
    assert audit.select("trials", "undecided", "accuracy").unique().rows() == [(5, 5, 0.0)]


def test_without_trials_there_is_no_accuracy(storage: Storage, tmp_path: Path) -> None:
    of = judged(*ASKING[:2])
    trials = trials_of(of, seed=1)
    contexts = trial_contexts(trials, of, searcher(of, storage, tmp_path), 3)
    judgements = cold_start_judgements(trials, contexts, HIERARCHY, content(), ColdStartRules())
    audit = EvaluatorAudit.validate(evaluator_audit(SOURCE, trials, judgements))
    assert set(audit.filter(distractor="other branch").select("trials", "accuracy").rows()) == {(0, None)}
    assert set(audit.filter(distractor="same branch")["trials"]) == {2}
    nothing = trials_of(judged(), seed=1)
    empty = trial_contexts(nothing, judged(), searcher(of, storage, tmp_path / "again"), 3)
    assert empty.is_empty()
    judgements = cold_start_judgements(nothing, empty, HIERARCHY, content(), ColdStartRules())
    assert set(evaluator_audit("title", nothing, judgements)["trials"]) == {0}


def content() -> pl.DataFrame:
    table = pl.DataFrame(
        [{"descriptor_ui": ui, "name": name} for name, ui in NAMES.items()],
        schema=MeshDescriptor.create_empty().schema,
    )
    headings = pl.Series([["D2"], ["D2"], ["D3"], ["D5"], ["D5"], ["D5"]])
    return information_content(table, HIERARCHY, count_annotations(HIERARCHY, [headings]))


def test_the_cold_start_is_audited_in_both_modes_and_by_every_similarity(
    searched: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    trials, contexts = searched
    rules = ColdStartRules(measure="rel", ic_source="intrinsic")
    judgements = cold_start_judgements(trials, contexts, HIERARCHY, content(), rules)
    audit = EvaluatorAudit.validate(evaluator_audit(SOURCE, trials, judgements))
    assert judgements[0].rules == rules
    assert audit["judge"].n_unique() == len(judgements) == 2 * 4 + 2
    modes = audit.select("mode", "measure", "ic_source").unique().height
    assert modes == 2 * 4 + 1
    assert set(audit.filter(mode="kailin_compat")["measure"]) == {"kailin"}
    others = audit.filter(distractor="other branch")
    assert set(others["accuracy"]) == {1.0}
    assert set(others["trials"]) == {5}
    only = ColdStartRules(mode="kailin_compat")
    assert len(cold_start_judgements(trials, contexts, HIERARCHY, content(), only)) == 2 * 4 + 2


def test_a_learned_evaluator_is_one_judge_more(searched: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    trials, contexts = searched
    documents = judged(*ASKING).documents
    verdicts = []
    for distractor in DISTRACTORS:
        pairs = pairs_to_judge(trials, distractor, contexts, documents)
        assert pairs["pmid"].to_list() == [1, 2, 3, 4, 5]
        row = pairs.row(0, named=True)
        text = evaluator_text(
            document_of(row), row["first_question"], row["first_context_titles"], max_characters=1_000
        )
        assert text.splitlines() == [
            "CITATION: This is about melanoma and the number 1.",
            f"QUESTION: {ASKING[0][2]}",
            "FOUND: On melanoma",
            "FOUND: On melanoma",
        ]
        shorter = pairs["first_question"].str.len_chars() < pairs["second_question"].str.len_chars()
        preferred = pl.select(pl.when(shorter).then(pl.lit("first")).otherwise(pl.lit("second"))).to_series()
        verdicts.append(pairs.select("pmid", distractor=pl.lit(distractor), preferred=preferred))
    audit = evaluator_audit(SOURCE, trials, [Judgement("the shorter one", pl.concat(verdicts))])
    assert EvaluatorAudit.validate(audit)["mode"].to_list() == [None, None]
    shorter_ones = trials.filter(
        pl.col("own_question").str.len_chars() < pl.col("other_question").str.len_chars()
    )
    assert audit["accuracy"].sum() * 5 == pytest.approx(shorter_ones.height)


# Documents


def benchmark(folder: Path, **headings: list[str]) -> Benchmark:
    entries: dict[str, Any] = {
        str(place): {"QUESTION": f"Is it {name}?", "CONTEXTS": [f"It is {name}."], "final_decision": "yes"}
        | {"MESHES": names}
        for place, (name, names) in enumerate(headings.items(), 1)
    }
    del entries["1"]["MESHES"]
    path = folder / "benchmark.json"
    path.write_text(json.dumps(entries))
    return read_pubmedqa(path)


def test_documents_have_the_headings_and_the_branch_of_their_source(tmp_path: Path) -> None:
    items = benchmark(
        tmp_path, without=[], melanoma=["Melanoma", "Therapy"], unheard=["Unheard Of"], nowhere=["Nowhere"]
    )
    citations = pl.DataFrame(
        [
            {
                "pmid": 2,
                "branch": "E02",
                "title": "Replaced",
                "text": "Replaced\nAs an item.",
                "heading_uis": [],
            },
            {"pmid": 50, "branch": "E02", "title": "Is surgery any good?", "heading_uis": ["D5", "D2"]}
            | {"text": "Is surgery any good?\nYes."},
            {"pmid": 51, "branch": None, "title": "Nothing", "text": "Nothing\nAt all.", "heading_uis": []},
        ],
        schema=CITATION,
    )
    sets = audited_sets(items, citations, HIERARCHY, tuned=False)
    of_items = sets["pubmedqa"]
    assert of_items.documents.select("pmid", "branch", "heading_uis").rows() == [
        (1, None, []),
        (2, "C04", ["Melanoma", "Therapy"]),
        (3, None, ["Unheard Of"]),
        (4, None, ["Nowhere"]),
        (50, "E02", ["D5", "D2"]),
        (51, None, []),
    ]
    assert dict(of_items.documents.schema) == CITATION
    assert set(of_items.questions) == {1, 2, 3, 4}
    of_titles = sets["title"]
    assert of_titles.questions == {50: "Is surgery any good?"}
    assert of_titles.documents.filter(pmid=50).row(0, named=True)["title"] == ""
    reasons = trials_of(of_items, seed=1).filter(distractor="other branch")["reason"].to_list()
    assert reasons == [NO_BRANCH, "no document of another branch asks something else", NO_BRANCH, NO_BRANCH]


def test_the_cold_start_tells_the_real_questions_of_pubmedqa(
    real_data: Path, storage: Storage, tmp_path: Path
) -> None:
    hierarchy = tree(real_data)
    items = read_pubmedqa(real_data / "pubmedqa" / "pqal_dev500.json")
    of = audited_sets(items, pl.DataFrame(schema=CITATION), hierarchy, tuned=False)["pubmedqa"]
    assert of.documents["branch"].null_count() == 0
    counts = count_annotations(hierarchy, [of.documents["heading_uis"]])
    trials = trials_of(of, seed=20)
    contexts = trial_contexts(trials, of, searcher(of, storage, tmp_path), 4)
    table = information_content(descriptors(real_data), hierarchy, counts)
    score = question_scores(contexts, similarity_of(hierarchy, table, ColdStartRules()))
    judgement = Judgement("cold start", verdicts_by_score(trials, score), ColdStartRules())
    other, same = evaluator_audit(SOURCE, trials, [judgement]).to_dicts()
    assert min(other["trials"], same["trials"]) > 480
    assert other["accuracy"] >= 0.95
    assert same["accuracy"] >= 0.85
