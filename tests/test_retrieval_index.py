"""The index: what searches find, what a killed or concurrent update leaves."""

import asyncio
import functools
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl
import pytest

import mkailin_resources.index as index_module
from mkailin_resources.embeddings.checkpoint import EncoderRecord, publish_encoder
from mkailin_resources.embeddings.corpus import CorpusEncoder
from mkailin_resources.index import CITATION, ContextStore, IndexUnavailable
from mkailin_resources.searcher import Filters, Retriever, Searcher, fused, wait
from mkailin_resources.storage import Storage

TEXTS = {
    1: "Aspirin lowers the risk of stroke in older adults",
    2: "Statins lower cholesterol and the risk of heart attack",
    3: "Sleep loss impairs memory in students",
    4: "Memory training helps students who sleep badly",
    5: "Vaccination prevents measles outbreaks in schools",
    6: "Measles immunity wanes in adults without vaccination",
}
HOSTILE = [
    '"', "'; DROP TABLE citations; --", "a:b AND (c", "* OR 1=1", "p53^2 [x TO y]~3", "\x00", "\\", "{}", "?",
    "肺癌の治療", "Влияет ли сон?", "🧬", "\ud800", "word " * 3000, "x" * 5000,
]  # fmt: skip


def citations(texts: dict[int, str]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "pmid": list(texts),
            "content_hash": [f"{hash_of(text)}" for text in texts.values()],
            "title": [f"Title {pmid}" for pmid in texts],
            "text": [f"Title {pmid}\n{text}" for pmid, text in texts.items()],
            "heading_uis": [[f"D{pmid:06}"] for pmid in texts],
            "pubmed_file": "pubmed26n0001",
            "branch": ["C04" if pmid % 2 else "C10" for pmid in texts],
            "year": [2000 + pmid for pmid in texts],
            "languages": [
                ["eng"] if pmid < 5 else ["ger", "eng"] if pmid == 5 else ["ger"] for pmid in texts
            ],
        },
        schema_overrides=CITATION,
    ).select(*CITATION)


def hash_of(text: str) -> str:
    return str(sum(map(ord, text)))


def reader(
    frame: pl.DataFrame, asked: list[int] | None = None
) -> Callable[[pl.Series], Iterable[pl.DataFrame]]:
    def read(pmids: pl.Series) -> Iterator[pl.DataFrame]:
        if asked is not None:
            asked.extend(pmids)
        yield from (frame.filter(pmid=pmid) for pmid in pmids if pmid in frame["pmid"])

    return read


@pytest.fixture(scope="module")
def encoder() -> CorpusEncoder:
    return CorpusEncoder.learn(list(TEXTS.values()))


class Index:
    """A store with its encoder, and the row that the asset would have recorded."""

    def __init__(self, folder: Path | str, encoder: CorpusEncoder) -> None:
        storage = Storage(root=str(folder))
        self.encoder_uri = publish_encoder(encoder, EncoderRecord(kind="corpus", name="corpus"), storage)
        self.store = ContextStore(storage=storage, retriever="hybrid")
        self.encoder, self.folder = encoder, folder
        self.recorded: int | None = None
        self.citations = 0

    def update(self, texts: dict[int, str], asked: list[int] | None = None) -> index_module.IndexUpdate:
        frame = citations(texts)
        read = reader(frame, asked)
        if len(texts) > 100:  # in one transaction, not one for each citation

            def read(pmids: pl.Series) -> Iterable[pl.DataFrame]:
                return [frame.filter(pl.col("pmid").is_in(pmids.implode()))]

        done = self.store.update(frame, read, self.encoder, self.recorded)
        self.recorded, self.citations = done.table_version, done.citations
        return done

    @property
    def row(self) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "uri": str(self.store.folder(self.encoder)),
                "table_version": self.recorded,
                "encoder": "corpus",
                "encoder_uri": self.encoder_uri,
                "encoder_fingerprint": self.encoder.fingerprint,
                "citations": self.citations,
            }
        )

    def open(self) -> Searcher:
        return self.store.open(self.row)

    def held(self) -> dict[int, str]:
        held = pl.concat(self.store.contents(self.row)).sort("pmid")
        assert held["pmid"].is_unique().all()
        return dict(held.select("pmid", "content_hash").iter_rows())


def expected(texts: dict[int, str]) -> dict[int, str]:
    return {pmid: hash_of(text) for pmid, text in sorted(texts.items())}


@pytest.fixture
def index(tmp_path: Path, encoder: CorpusEncoder) -> Index:
    return Index(tmp_path, encoder)


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory, encoder: CorpusEncoder) -> Searcher:
    index = Index(tmp_path_factory.mktemp("index"), encoder)
    index.update(TEXTS)
    return index.open()


def test_a_question_finds_its_abstract_first(searcher: Searcher) -> None:
    hits = searcher.search(["Does vaccination prevent measles?", "Do statins lower cholesterol?"], 2)
    assert [hit.pmid for hit in hits[0]] == [5, 6]
    assert hits[1][0].pmid == 2
    best = hits[0][0]
    assert (best.found_by, best.content_hash, best.heading_uis) == ("both", hash_of(TEXTS[5]), ("D000005",))
    assert best.score == pytest.approx(1 / 21 + 1 / 22), "first by one retriever, second by the other"


def test_questions_are_searched_alike_alone_and_in_batches(searcher: Searcher) -> None:
    questions = ["sleep and memory", "stroke", "measles in adults"]
    alone = [searcher.search([question], 4)[0] for question in questions]
    assert searcher.search(questions * 300, 4) == alone * 300


def test_hostile_questions_break_nothing(searcher: Searcher) -> None:
    hits = searcher.search([*HOSTILE, "measles"], 3)
    assert len(hits) == len(HOSTILE) + 1
    assert hits[-1][0].pmid in (5, 6)
    quoted = searcher.search(['"measles" AND (vaccination: -prevents', "measles AND vaccination prevents"], 3)
    assert quoted[0] == quoted[1]


@pytest.mark.parametrize("question", ["", "   ", "?!", "the of in", "xyzzy"])
def test_a_question_without_a_known_word_finds_nothing(searcher: Searcher, question: str) -> None:
    assert searcher.search([question], 4) == [[]]


def test_no_questions_give_no_lists(searcher: Searcher) -> None:
    assert searcher.search([], 4) == []


def test_equal_scores_are_ordered_by_pmid(index: Index) -> None:
    index.update({pmid: TEXTS[1] for pmid in (9, 7, 8)} | {3: TEXTS[3]})
    ranked = index.open().rank(["risk of stroke"])[0]
    assert [found.pmid for found in index.open().search(["risk of stroke"], 3)[0]] == [7, 8, 9]
    assert [found.pmid for found in ranked] == [7, 8, 9]


def test_a_citation_found_by_one_retriever_says_which() -> None:
    ranked = fused([1, 2], [2, 3])
    assert [(found.pmid, found.found_by) for found in ranked] == [(2, "both"), (1, "dense"), (3, "lexical")]
    assert [found.score for found in ranked] == pytest.approx([1 / 22 + 1 / 21, 1 / 21, 1 / 22])


def test_texts_are_the_abstracts_without_the_titles(searcher: Searcher) -> None:
    texts = searcher.texts([4, 1, 999, 4])
    assert texts.to_dicts() == [
        {"pmid": 1, "title": "Title 1", "text": TEXTS[1]},
        {"pmid": 4, "title": "Title 4", "text": TEXTS[4]},
    ]
    assert searcher.texts([]).is_empty()


def test_searching_works_inside_a_running_event_loop(searcher: Searcher) -> None:
    async def in_a_notebook() -> int:
        return searcher.search(["stroke"], 1)[0][0].pmid

    assert asyncio.run(in_a_notebook()) == 1


def test_an_empty_index_is_searched_without_an_error(index: Index) -> None:
    assert index.update({}).citations == 0
    assert index.open().search(["stroke", ""], 4) == [[], []]


def test_an_update_works_only_on_what_changed(index: Index) -> None:
    index.update(TEXTS)
    changed = {pmid: text for pmid, text in TEXTS.items() if pmid != 6} | {
        2: "Something else",
        7: "Something new",
    }
    asked: list[int] = []
    done = index.update(changed, asked)
    assert sorted(asked) == [2, 7]
    assert (done.added, done.replaced, done.removed, done.citations) == (1, 1, 1, 6)
    assert index.held() == expected(changed)


def test_an_update_without_changes_keeps_the_version(index: Index) -> None:
    before = index.update(TEXTS).table_version
    asked: list[int] = []
    done = index.update(TEXTS, asked)
    assert (done.table_version, done.added, done.replaced, done.removed, asked) == (before, 0, 0, 0, [])


def test_an_updated_index_ranks_as_a_rebuilt_one(tmp_path: Path, encoder: CorpusEncoder) -> None:
    updated, rebuilt = Index(tmp_path / "updated", encoder), Index(tmp_path / "rebuilt", encoder)
    updated.update({1: "Measles and measles again", 9: TEXTS[5], 5: TEXTS[5], 2: TEXTS[2]})
    updated.update(dict(list(TEXTS.items())[2:]))
    updated.update(TEXTS)
    rebuilt.update(TEXTS)
    assert updated.held() == rebuilt.held()
    questions = [*TEXTS.values(), "measles", "adults", "risk of sleep"]
    assert updated.open().rank(questions) == rebuilt.open().rank(questions)


def test_a_removed_citation_no_longer_counts_in_word_statistics(
    tmp_path: Path, encoder: CorpusEncoder
) -> None:
    updated, rebuilt = Index(tmp_path / "updated", encoder), Index(tmp_path / "rebuilt", encoder)
    many = {pmid: f"{TEXTS[pmid % 6 + 1]} and {pmid}" for pmid in range(1, 61)}
    fewer = {pmid: text for pmid, text in many.items() if pmid != 4}
    updated.update(many)
    updated.update(fewer)
    rebuilt.update(fewer)
    assert scores(updated.open()) == scores(rebuilt.open()) != []


def scores(searcher: Searcher) -> list[tuple[int, float]]:
    """BM25 scores, which change with the statistics of the whole index."""
    from lancedb.query import MatchQuery

    query = searcher._table.query().nearest_to_text(MatchQuery("measles in adults", "text"))
    found = wait(query.select(["pmid", "_score"]).to_list())
    return sorted((row["pmid"], row["_score"]) for row in found)


def test_a_citation_whose_text_nobody_has_is_named_and_the_others_are_indexed(index: Index) -> None:
    wanted = citations(TEXTS)
    done = index.store.update(wanted, reader(wanted.filter(pl.col("pmid") != 4)), index.encoder, None)
    assert (done.unread, done.citations, done.added) == ((4,), 5, 5)


def test_searches_see_the_recorded_version_while_an_update_is_under_way(index: Index) -> None:
    index.update(TEXTS)
    seen: list[list[int]] = []
    after = citations({8: "Measles measles measles"})

    def read(pmids: pl.Series) -> Iterator[pl.DataFrame]:
        yield after
        seen.append([hit.pmid for hit in index.open().search(["measles"], 9)[0]])

    index.store.update(after, read, index.encoder, index.recorded)
    assert [sorted(pmids) for pmids in seen] == [[5, 6]]
    assert sorted(hit.pmid for hit in index.open().search(["measles"], 9)[0]) == [5, 6]


UPDATE = """
import os, signal, sys
from pathlib import Path
from typing import get_args
sys.path.insert(0, {tests!r})
from test_retrieval_index import Index, TEXTS, citations, hash_of
from mkailin_resources.embeddings.checkpoint import open_encoder
from mkailin_resources.index import ContextStore
from mkailin_resources.storage import Storage

frame = citations({texts!r})
def read(pmids):
    for place, pmid in enumerate(pmids):
        if place == {after}:
            os.kill(os.getpid(), signal.SIGKILL)
        yield frame.filter(pmid=pmid)
store = ContextStore(storage=Storage(root={root!r}), retriever="hybrid")
encoder = open_encoder({encoder!r}, {fingerprint!r}, store.storage)
done = store.update(frame, read, encoder, {recorded})
print(done.table_version)
"""


def process(index: Index, texts: dict[int, str], kill_after: int) -> "subprocess.Popen[bytes]":
    script = UPDATE.format(
        tests=str(Path(__file__).parent),
        texts=texts,
        after=kill_after,
        root=str(index.folder),
        encoder=index.encoder_uri,
        fingerprint=index.encoder.fingerprint,
        recorded=index.recorded,
    )
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_killed_update_is_invisible_and_the_next_one_repairs_it(index: Index) -> None:
    index.update(TEXTS)
    before = index.held()
    changed = {pmid: f"{text}, revised" for pmid, text in TEXTS.items() if pmid != 6} | {7: "Something new"}
    killed = process(index, changed, kill_after=2)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    head = index_module._held(index_module._head(index.row.item(0, "uri"), index.encoder.dimension))
    assert head.height == 2, "it was killed in the middle"
    assert index.held() == before
    assert index.open().search(["measles"], 1)[0][0].content_hash in before.values()

    asked: list[int] = []
    index.update(changed, asked)
    assert sorted(asked) == [3, 4, 5, 7], "what the killed update had added is kept"
    assert index.held() == expected(changed)


def test_an_index_on_an_object_store_is_updated_and_searched(bucket: str, encoder: CorpusEncoder) -> None:
    index = Index(bucket, encoder)
    assert index.update(TEXTS).embedded == 6
    before = index.row
    changed = {pmid: text for pmid, text in TEXTS.items() if pmid != 6} | {7: "Measles in the elderly"}
    done = index.update(changed)
    assert (done.added, done.removed, done.embedded) == (1, 1, 1)
    assert index.held() == expected(changed)
    assert {hit.pmid for hit in index.open().search(["measles"], 9)[0]} >= {5, 7}
    assert {hit.pmid for hit in index.store.open(before).search(["measles"], 9)[0]} >= {5, 6}


def test_updates_at_once_all_finish_with_a_whole_index(index: Index) -> None:
    frame = citations(TEXTS)
    with ThreadPoolExecutor(4) as runs:
        update = functools.partial(index.store.update, frame, reader(frame), index.encoder)
        updates = list(runs.map(update, [None] * 4))
    for done in updates:
        index.recorded = done.table_version
        assert index.held() == expected(TEXTS)


@pytest.mark.parametrize("moment", ["before it adds the same citations", "before it updates the word index"])
def test_an_update_that_another_one_disturbed_fails_and_changes_no_search(
    index: Index, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """As on remote storage, where no lock makes the second wait."""
    monkeypatch.setattr(Storage, "turn", lambda storage, name: nullcontext())
    index.update({1: TEXTS[1]})
    frame = citations(TEXTS)
    other = Index(index.folder / "other", index.encoder)
    other.store = index.store

    def read(pmids: pl.Series) -> Iterator[pl.DataFrame]:
        if moment == "before it adds the same citations":
            other.update(TEXTS)
        yield frame.filter(pl.col("pmid").is_in(pmids.implode()))
        if moment == "before it updates the word index":
            other.update(TEXTS)

    with pytest.raises(IndexUnavailable, match="another run wrote to it meanwhile"):
        index.store.update(frame, read, index.encoder, index.recorded)
    assert index.held() == expected({1: TEXTS[1]})
    index.update(TEXTS)
    assert index.held() == other.held() == expected(TEXTS)


def test_old_versions_go_but_never_the_recorded_one(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_KEEP_VERSIONS", timedelta(milliseconds=1))
    monkeypatch.setattr(index_module, "_CLOCK_JUMP", timedelta(seconds=0.01))
    index.update(TEXTS)
    first_row = index.row
    done = index.update({1: "a new text"})
    assert index.store.open(first_row).search(["measles"], 1)[0], "recorded when the update began"
    assert index.recorded == done.table_version
    index.update({2: "another text"})
    assert index.open().search(["another text"], 1)[0]
    with pytest.raises(IndexUnavailable, match="materialize context_index again"):
        index.store.open(first_row)


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Index, dict[int, str]]:
    """An index that is too large to be searched exactly, and its texts."""
    monkeypatch.setattr(index_module, "_ROWS_SEARCHED_EXACTLY", 1_000)
    rng = np.random.default_rng(0)
    vocabulary = [f"w{number}" for number in range(400)]
    texts = {pmid: " ".join(rng.choice(vocabulary, 12)) for pmid in range(1, 2_001)}
    index = Index(tmp_path, CorpusEncoder.learn(list(texts.values())))
    index.update(texts)
    return index, texts


def test_a_large_index_is_searched_approximately_with_the_same_best_hits(
    large: tuple[Index, dict[int, str]],
) -> None:
    index, texts = large
    searcher = index.store.open(index.row)
    exact = Searcher(searcher._table, index.encoder, exact=True)
    assert searcher._vectors is None
    questions = [texts[pmid] for pmid in range(1, 41)] + [""]
    found, right = searcher.dense(questions, 100), exact.dense(questions, 100)
    assert [pmids[:1] for pmids in found] == [pmids[:1] for pmids in right]
    recall = [len(set(a) & set(b)) / 100 for a, b in zip(found, right, strict=True) if b]
    assert np.mean(recall) > 0.9


def test_a_narrow_filter_finds_all_it_lets_through_in_a_large_index(
    large: tuple[Index, dict[int, str]],
) -> None:
    index, texts = large
    searcher = index.store.open(index.row, Filters(from_year=2_100, to_year=2_109))
    everything = [" ".join(texts[pmid] for pmid in range(100, 110))]
    assert set(searcher.dense(everything, 100)[0]) == set(range(100, 110))


def segments(index: Index) -> set[int]:
    head = index_module._head(str(index.store.folder(index.encoder)), index.encoder.dimension)
    return {one.num_segments for one in head.list_indices()}


def test_a_large_index_is_extended_by_what_changed_and_made_anew_when_much_has(
    large: tuple[Index, dict[int, str]], tmp_path: Path
) -> None:
    index, texts = large
    assert segments(index) == {1}
    for number in (1, 2):
        texts = {pmid: text for pmid, text in texts.items() if pmid % 200 != number}
        texts |= {pmid: f"{text} revised {number}" for pmid, text in texts.items() if pmid % 200 == 50}
        texts |= {2_000 + number: f"w1 w2 w3 w4 w5 w{number}9 w{number}8"}
        index.update(texts)
        assert segments(index) == {2}, "what is new lies beside the large segment, in one of its own"
    assert index.held() == expected(texts)
    rebuilt = Index(tmp_path / "rebuilt", index.encoder)
    rebuilt.update(texts)
    questions = [texts[pmid] for pmid in (50, 250, 77, 2_001, 2_002)]
    updated, anew = index.open(), rebuilt.open()
    # Both are approximate by vectors, each with clusters of its own.
    for by, least in (("dense", 0.5), ("lexical", 0.9)):
        found, right = getattr(updated, by)(questions, 10), getattr(anew, by)(questions, 10)
        assert [pmids[0] for pmids in found] == [pmids[0] for pmids in right] == [50, 250, 77, 2_001, 2_002]
        shared = sum(len(set(a) & set(b)) for a, b in zip(found, right, strict=True))
        assert shared >= least * sum(map(len, right)), by
    index.update({pmid: f"{text} again" if pmid < 400 else text for pmid, text in texts.items()})
    assert segments(index) == {1}


def test_words_alone_vectors_alone_or_both_search_as_the_setting_says(index: Index) -> None:
    index.update(TEXTS)
    question = TEXTS[5]
    found = {}
    for retriever in get_args(Retriever):
        store = ContextStore(storage=index.store.storage, retriever=retriever)
        searcher = store.open(index.row)
        assert searcher.search_kind == f"{retriever}-1"
        found[retriever] = searcher.search([question], 3)[0]
    assert {hit.found_by for hit in found["dense"]} == {"dense"}
    assert {hit.found_by for hit in found["lexical"]} == {"lexical"}
    assert {hit.found_by for hit in found["hybrid"]} >= {"both"}
    assert [hits[0].pmid for hits in found.values()] == [5, 5, 5]


FILTERED = [
    (Filters(), {1, 2, 3, 4, 5, 6}),
    (Filters(from_year=2003), {3, 4, 5, 6}),
    (Filters(from_year=2003, to_year=2005), {3, 4, 5}),
    (Filters(branches=("C04",)), {1, 3, 5}),
    (Filters(languages=("ger",)), {5, 6}),
    (Filters(languages=("eng", "ger"), to_year=2002), {1, 2}),
    (Filters(branches=("C04", "C10"), languages=("ger",), to_year=2005), {5}),
    (Filters(branches=("it's",)), set()),
]


@pytest.mark.parametrize(("filters", "expected_pmids"), FILTERED)
@pytest.mark.parametrize("exact", [True, False])
def test_filters_let_through_what_they_name_and_nothing_else(
    index: Index, monkeypatch: pytest.MonkeyPatch, filters: Filters, expected_pmids: set[int], exact: bool
) -> None:
    index.update(TEXTS)
    if not exact:
        monkeypatch.setattr(index_module, "_ROWS_SEARCHED_EXACTLY", -1)
    searcher = index.store.open(index.row, filters)
    everything = [" ".join(TEXTS.values())]
    by_words, by_vectors = searcher.lexical(everything, 9)[0], searcher.dense(everything, 9)[0]
    assert set(by_words) == expected_pmids
    assert set(by_vectors) == expected_pmids
    assert {hit.pmid for hit in searcher.search(everything, 9)[0]} == expected_pmids


def test_filters_say_in_words_what_they_let_through() -> None:
    assert str(Filters()) == ""
    assert str(Filters(from_year=2000)) == "years 2000-"
    assert str(Filters(to_year=0)) == "years -0"
    everything = Filters(1999, 2005, ("C04", "C10"), ("eng",))
    assert str(everything) == "years 1999-2005, branches C04 C10, languages eng"


def test_new_headings_or_another_file_renew_a_row_and_embed_nothing(index: Index) -> None:
    assert index.update(TEXTS).embedded == 6
    frame = citations(TEXTS)
    is_two = pl.col("pmid") == 2
    changed = frame.with_columns(
        heading_uis=pl.when(is_two).then(pl.lit(["D9"], pl.List(pl.String))).otherwise("heading_uis"),
        content_hash=pl.when(is_two).then(pl.lit("with headings")).otherwise("content_hash"),
        pubmed_file=pl.when(pmid=3).then(pl.lit("pubmed26n0002")).otherwise("pubmed_file"),
        branch=pl.when(pmid=4).then(pl.lit(None, pl.String)).otherwise("branch"),
    )
    done = index.store.update(changed, reader(changed), index.encoder, index.recorded)
    assert (done.replaced, done.added, done.removed, done.embedded) == (3, 0, 0, 0)
    index.recorded = done.table_version
    assert index.open().records([2])[2].heading_uis == ("D9",)
    again = index.store.update(changed, reader(changed), index.encoder, index.recorded)
    assert (again.replaced, again.table_version) == (0, done.table_version), "a branch may be unknown"


class Failing(CorpusEncoder):
    """A real encoder that overflows on one text."""

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        vectors = super().encode_documents(texts)
        vectors[["heart attack" in text for text in texts]] = np.nan
        return vectors


def test_a_citation_whose_vector_is_not_finite_is_named_and_found_by_its_words(tmp_path: Path) -> None:
    whole = CorpusEncoder.learn(list(TEXTS.values()))
    index = Index(tmp_path, Failing(whole._vocabulary, whole._idf, whole._components))
    done = index.update(TEXTS)
    assert done.unembedded.rows() == [(2, "its vector has numbers that are not finite")]
    hits = index.open().search(["heart attack"], 1)[0]
    assert [(hit.pmid, hit.found_by) for hit in hits] == [(2, "lexical")]
    assert index.update(TEXTS).unembedded.height == 1, "it is named as long as it is so"


def test_a_question_whose_vector_is_not_finite_is_searched_by_its_words(index: Index) -> None:
    index.update(TEXTS)
    searcher, dimension = index.open(), index.encoder.dimension
    searcher._encoder = type(
        "Broken", (), {"encode_queries": lambda _, texts: np.full((len(texts), dimension), np.nan)}
    )()
    assert searcher.dense(["measles"], 3) == [[]]
    assert {hit.found_by for hit in searcher.search(["measles"], 3)[0]} == {"lexical"}


def test_an_encoder_of_another_dimension_than_the_index_is_refused(index: Index, tmp_path: Path) -> None:
    index.update(TEXTS)
    other = CorpusEncoder.learn([f"word{number} alone" for number in range(12)])
    uri = publish_encoder(other, EncoderRecord(kind="corpus", name="corpus"), index.store.storage)
    row = index.row.with_columns(encoder_uri=pl.lit(uri), encoder_fingerprint=pl.lit(other.fingerprint))
    with pytest.raises(
        IndexUnavailable, match=rf"have {index.encoder.dimension} numbers, .* have 16; material"
    ):
        index.store.open(row)


ODD = {1: "measles", 2: "measles " * 12_500, 3: "\u9ebb\u75b9\u306e\u7814\u7a76", 4: "Measles\x00 in adults"}


def test_abstracts_of_one_word_of_100_000_characters_and_in_another_script_are_indexed(index: Index) -> None:
    assert index.update(ODD).citations == 4
    assert {hit.pmid for hit in index.open().search(["measles"], 4)[0]} == {1, 2, 4}
    assert [hit.pmid for hit in index.open().search(["\u9ebb\u75b9\u306e\u7814\u7a76"], 4)[0]] == [3]
