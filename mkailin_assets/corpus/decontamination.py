"""Which rows would give a benchmark away: found by PMID and by the words of its questions.

Twice, by code that shares no more than what counts as a find: `contamination` compares the words
themselves, to say what stays out of a corpus and why; `leaks` compares digests, to look at what was published
where the benchmark is not at hand.
"""

import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Literal

import numpy as np
import polars as pl

from mkailin_assets.mesh.hierarchy import compiled

NGRAM_WORDS = 8
# From five words on a question with a question mark is found within other texts too, shorter than a run
# as it is: in 7,655 real abstracts and 11,592 questions about them none stood by chance.
SHORT_QUESTION_WORDS = 5
# What more questions share, numbers aside ("a 45 year old man comes to the"), is how benchmarks ask. Five
# questions of MMLU are about one passage, whose words do tell where they are from.
MOST_SHARING = 5
BENCHMARK = pl.Schema({"benchmark": pl.String, "item": pl.String, "pmid": pl.Int64, "question": pl.String})
FINGERPRINTS = pl.Schema(
    {
        "benchmark": pl.String,
        "item": pl.String,
        "kind": pl.String,
        "digest": pl.UInt64,
        "start": pl.UInt64,
        "words": pl.Int64,
    }
)
_HIT = pl.Schema(dict.fromkeys(("reason", "benchmark", "benchmark_item", "evidence"), pl.String))
LEAK = pl.Schema(
    {"example_id": pl.String, "pmid": pl.Int64, "kind": pl.String, "benchmark": pl.String, "item": pl.String}
)
# What asks, and what is read besides.
_ASKING = ("question", "title")
_READ = ("context", "long_answer", "pretraining_text")
_ROWS_AT_ONCE = 2_000
# 64-bit FNV-1a for the characters of a word, the finalizer of SplitMix64 (Steele et al. 2014) between words.
_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_27, _30, _31 = np.uint64(27), np.uint64(30), np.uint64(31)


class Decontaminator:
    """Finds the rows that give a benchmark away. Made once, asked batch by batch."""

    def __init__(self, benchmark: pl.DataFrame) -> None:
        """`benchmark` has the columns `BENCHMARK`: an item a row, or several where it is about several PMIDs.

        Of items that share what is found, the first is named.
        """
        asked = _asked(benchmark)
        self._pmids = _cited(benchmark).select("pmid", found=_naming(pl.col("pmid").cast(pl.String)))
        self._asked = asked.select("asked", found=_naming(pl.col("question")))
        self._runs = _telling_runs(asked).select("run", found=_naming(pl.col("run")))
        self._whole = asked.filter("whole").select(
            "asked", probe=_first_words(NGRAM_WORDS), found=_naming(pl.col("question"))
        )
        self._probes = self._whole["probe"].unique(maintain_order=True).implode()

    def of(self, rows: pl.DataFrame) -> pl.DataFrame:
        """`contamination` of these rows."""
        parts = [self._of(part) for part in rows.iter_slices(_ROWS_AT_ONCE)]
        return pl.concat([pl.DataFrame(schema=_HIT), *parts])

    def _of(self, rows: pl.DataFrame) -> pl.DataFrame:
        read = rows.select(
            "pmid",
            "context_pmids",
            asked=normalised(pl.col("question")),
            title=normalised(pl.col("title")),
            text=normalised(pl.col("text")),
        ).with_row_index("row")
        cited = read.select("row", pmid="context_pmids").explode("pmid", empty_as_null=False)
        asking = pl.concat([read.select("row", text=column) for column in ("asked", "title")])
        hits = {
            "the source is a benchmark citation": _joined(read, self._pmids, "pmid"),
            "a context is a benchmark citation": _joined(cited, self._pmids, "pmid"),
            "asks a benchmark question": _joined(read, self._asked, "asked"),
            f"shares {NGRAM_WORDS} words in a row with a benchmark question": _joined(
                _runs(asking.drop_nulls()), self._runs, "run"
            ),
            "its text holds a benchmark question": self._held(read),
        }
        found = pl.concat(hit.select("row", "found", reason=pl.lit(reason)) for reason, hit in hits.items())
        first = found.unique("row", keep="first", maintain_order=True).unnest("found")
        return _joined(read, first, "row", how="left").select(_HIT.names())

    def _held(self, read: pl.DataFrame) -> pl.DataFrame:
        # Two blanks where they meet: no question goes from one into the other.
        text = pl.concat_str("asked", "title", "text", ignore_nulls=True)
        begun = read.select("row", text=text).filter(pl.col("text").str.contains_any(self._probes))
        probes = pl.col("text").str.extract_many(self._probes, overlapping=True).list.unique()
        begun = begun.with_columns(probe=probes).explode("probe", empty_as_null=False)
        candidates = _joined(begun, self._whole, "probe")
        return candidates.filter(pl.col("text").str.contains(pl.col("asked"), literal=True))


def contamination(rows: pl.DataFrame, benchmark: pl.DataFrame) -> pl.DataFrame:
    """For each row why it may not be trained on: reason, benchmark, benchmark_item, evidence; null: it may.

    `rows` has `pmid`, `question`, `title`, `context_pmids` (list) and `text` (all that a model would
    read); `benchmark` the columns `BENCHMARK`. Exact: PMIDs, questions equal but for case and punctuation,
    eight words in a row in question or title, as datatrove and others use n-grams, and whole questions in
    any text. `evidence` is what they share: PMID, question or words. Many batches share a `Decontaminator`.
    """
    return Decontaminator(benchmark).of(rows)


def fingerprints_of(benchmark: pl.DataFrame) -> pl.DataFrame:
    """The columns `FINGERPRINTS`: what `leaks` looks for, in digests that tell no question.

    `kind` is pmid, question or run (of eight words). Of a question that no text may hold, `start` is the
    digest of its first five words. They show nothing, and keep no secret either: who knows how a question
    begins can guess it on, word by word.
    """
    asked = _asked(benchmark)
    cited, runs = _cited(benchmark), _telling_runs(asked)
    starts = _digests_of(asked.select(_first_words(SHORT_QUESTION_WORDS)).to_series())
    found = [
        cited.with_columns(kind=pl.lit("pmid"), digest=_digests_of_pmids(cited["pmid"])),
        asked.with_columns(kind=pl.lit("question"), digest=_digests_of(asked["asked"])).with_columns(
            start=pl.when("whole").then(starts)
        ),
        runs.with_columns(kind=pl.lit("run"), digest=_digests_of(runs["run"])).drop("words"),
    ]
    named = [rows.rename({"benchmark_item": "item"}) for rows in found]
    return pl.concat([pl.DataFrame(schema=FINGERPRINTS), *named], how="diagonal").select(FINGERPRINTS.names())


def leaks(rows: pl.DataFrame, fingerprints: pl.DataFrame) -> pl.DataFrame:
    """Which rows give a benchmark away, and what: example_id, pmid, kind, benchmark, item. None should.

    `rows` has example_id, pmid, context_pmids and question, and may have title, context, long_answer and
    pretraining_text. What counts is what counts for `contamination`. Memory does not grow with the rows.
    """
    found = [_leaks(part, fingerprints) for part in rows.iter_slices(_ROWS_AT_ONCE)]
    return pl.concat([pl.DataFrame(schema=LEAK), *found]).unique(maintain_order=True)


def benchmark_questions(items: Iterable[tuple[int | str | None, str]]) -> pl.DataFrame:
    """A benchmark of (PMID, question) pairs, its items numbered from 1."""
    rows = [
        ("benchmark", str(place), None if pmid is None else int(pmid), question)
        for place, (pmid, question) in enumerate(items, 1)
    ]
    return pl.DataFrame(rows, schema=BENCHMARK, orient="row")


def normalised(text: pl.Expr) -> pl.Expr:
    """Text as its lower-case words between single blanks, one before and one after.

    Compatibility forms (ligatures, full-width letters) are resolved and punctuation left out, so that
    equal wording is an equal string and `in` finds whole words only.
    """
    words = text.str.normalize("NFKC").str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", " ")
    return pl.format(" {} ", words.str.strip_chars())


def _cited(benchmark: pl.DataFrame) -> pl.DataFrame:
    """The PMIDs of a benchmark, each with the first item about it: benchmark, benchmark_item, pmid."""
    cited = benchmark.drop_nulls("pmid").unique("pmid", keep="first", maintain_order=True)
    return cited.select("benchmark", "pmid", benchmark_item="item")


def _asked(benchmark: pl.DataFrame) -> pl.DataFrame:
    """The questions of a benchmark, each once: benchmark, benchmark_item, question, asked, words, whole.

    `asked` is normalised; `whole`: whether another text that holds it was made from it.
    """
    asked = benchmark.select(
        "benchmark", "question", benchmark_item="item", asked=normalised(pl.col("question"))
    ).unique("asked", keep="first", maintain_order=True)
    words = pl.col("asked").str.count_matches(" ").cast(pl.Int64) - 1
    question = pl.col("question").str.contains(r"\?\W*$")
    whole = (pl.col("words") >= NGRAM_WORDS) | (question & (pl.col("words") >= SHORT_QUESTION_WORDS))
    return (
        asked.with_columns(words=words)
        .with_columns(whole=whole)
        .filter(pl.col("asked").str.strip_chars() != "")
    )


def _telling_runs(asked: pl.DataFrame) -> pl.DataFrame:
    """Every run of eight words that tells which question it is from, each once, beside that of `_asked`."""
    found = _runs(asked.with_columns(text="asked").with_row_index("row"))
    shape = pl.col("run").str.replace_all(r"\b\p{N}+\b", "#")
    telling = pl.col("row").n_unique().over(shape) <= MOST_SHARING
    return found.filter(telling).unique("run", keep="first", maintain_order=True)


def _runs(rows: pl.DataFrame) -> pl.DataFrame:
    """For every eight words in a row of the normalised `text` its row, which has them as `run` instead."""
    words = (
        rows.with_row_index("place")
        .with_columns(word=pl.col("text").str.strip_chars().str.split(" "))
        .drop("text")
        .explode("word")
    )
    run = pl.concat_str([pl.col("word").shift(-at) for at in range(NGRAM_WORDS)], separator=" ")
    in_one = pl.col("place") == pl.col("place").shift(1 - NGRAM_WORDS)
    return words.with_columns(run=run).filter(in_one).drop("place", "word")


def _first_words(count: int) -> pl.Expr:
    """The first words of the normalised `asked`, normalised."""
    return pl.format(" {} ", pl.col("asked").str.strip_chars().str.split(" ").list.head(count).list.join(" "))


def _naming(evidence: pl.Expr) -> pl.Expr:
    return pl.struct("benchmark", "benchmark_item", evidence=evidence)


def _joined(
    rows: pl.DataFrame, known: pl.DataFrame, on: str, how: Literal["inner", "left"] = "inner"
) -> pl.DataFrame:
    """The rows with what is known, in their order."""
    return rows.join(known, on=on, how=how, maintain_order="left_right")


def _leaks(rows: pl.DataFrame, fingerprints: pl.DataFrame) -> pl.DataFrame:
    pmids, questions, runs = (fingerprints.filter(kind=kind) for kind in ("pmid", "question", "run"))
    # Hundreds of questions begin with the same five words.
    lengths = questions.drop_nulls("start").select("start", "words").unique()
    cited = rows.select(pmid=pl.concat_list("pmid", "context_pmids")).with_row_index("row").explode("pmid")
    found = [cited.with_columns(digest=_digests_of_pmids(cited["pmid"])).join(pmids, on="digest")]
    for column in (*_ASKING, *_READ):
        if column in rows.columns:
            text = _Words(rows[column])
            starts = text.in_a_row(SHORT_QUESTION_WORDS).rename({"digest": "start"})
            begun = starts.join(lengths, on="start")
            ended = begun.with_columns(text.digests(begun["place"], begun["words"]))
            found.append(ended.join(questions, on="digest"))
            if column in _ASKING:
                found.append(text.in_a_row(NGRAM_WORDS).join(runs, on="digest"))
        if column == "question":
            found.append(text.whole().join(questions, on="digest"))
    hits = pl.concat(hit.select("row", "kind", "benchmark", "item") for hit in found)
    return _joined(rows.with_row_index("row"), hits, "row").select(LEAK.names())


class _Words:
    """The words of many texts as numbers, and digests of what stands there in a row."""

    def __init__(self, texts: pl.Series) -> None:
        read = [unicodedata.normalize("NFKC", text).lower() for text in texts.fill_null("")]
        codes = np.frombuffer("".join(read).encode("utf-32-le"), np.uint32)
        ends = np.cumsum([len(text) for text in read], dtype=np.int64)
        self._words, self._rows = compiled(_hashed_words)(codes, ends, _word_characters())

    def digests(self, places: pl.Series, counts: pl.Series) -> pl.Series:
        """Of so many words from each place on; 0 where a text has fewer."""
        return _digests_from(self._words, self._rows, places.to_numpy(), counts.to_numpy())

    def in_a_row(self, count: int) -> pl.DataFrame:
        """The digest of every `count` words in a row: row, place, digest."""
        places = pl.DataFrame({"row": self._rows}, schema={"row": pl.UInt32}).with_row_index("place")
        counts = pl.repeat(count, places.height, dtype=pl.Int64, eager=True)
        return places.with_columns(digest=self.digests(places["place"], counts)).filter(pl.col("digest") != 0)

    def whole(self) -> pl.DataFrame:
        """The digest of each text that has words: row, digest."""
        rows, places, counts = np.unique(self._rows, return_index=True, return_counts=True)
        digests = self.digests(pl.Series(places), pl.Series(counts))
        return pl.DataFrame({"row": rows, "digest": digests}, schema={"row": pl.UInt32, "digest": pl.UInt64})


def _digests_of(texts: pl.Series) -> pl.Series:
    """The digest of each text's words; every text has words."""
    return _Words(texts).whole()["digest"]


def _digests_of_pmids(pmids: pl.Series) -> pl.Series:
    """The digest of each PMID, as if it were a word of its own."""
    numbers, places = pmids.cast(pl.UInt64).to_numpy(), np.arange(pmids.len())
    return _digests_from(numbers, places, places, np.ones_like(places))


def _digests_from(words: np.ndarray, rows: np.ndarray, places: np.ndarray, counts: np.ndarray) -> pl.Series:
    return pl.Series("digest", compiled(_digests)(words, rows, places, counts), dtype=pl.UInt64)


@cache
def _word_characters() -> np.ndarray:
    """Whether a code point is a letter or digit: what `normalised` takes for words, but for newer Unicode."""
    return np.array([unicodedata.category(chr(code))[0] in "LN" for code in range(0x110000)])


def _hashed_words(codes: np.ndarray, ends: np.ndarray, is_word: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number for each word of texts that are code points one after another, and the row of its text."""
    words = np.empty(codes.shape[0] // 2 + ends.shape[0], np.uint64)
    rows = np.empty(words.shape[0], np.int64)
    count = 0
    start = 0
    for row in range(ends.shape[0]):
        word, inside = _BASIS, False
        for at in range(start, ends[row] + 1):
            if at < ends[row] and is_word[codes[at]]:
                word, inside = (word ^ np.uint64(codes[at])) * _PRIME, True
            elif inside:
                words[count], rows[count] = word, row
                count += 1
                word, inside = _BASIS, False
        start = ends[row]
    return words[:count], rows[:count]


def _digests(words: np.ndarray, rows: np.ndarray, places: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """For `counts` words from `places` on a number that depends on all and their order; 0 across rows."""
    digests = np.zeros(places.shape[0], np.uint64)
    for index in range(places.shape[0]):
        start = places[index]
        end = start + counts[index]
        if end > words.shape[0] or rows[end - 1] != rows[start]:
            continue
        digest = _BASIS
        for at in range(start, end):
            digest ^= words[at]
            digest = (digest ^ (digest >> _30)) * _FIRST
            digest = (digest ^ (digest >> _27)) * _SECOND
            digest ^= digest >> _31
        digests[index] = digest
    return digests
