"""Which rows would give a benchmark away: found by PMID and by the words of its questions."""

from collections.abc import Iterable

import polars as pl

NGRAM_WORDS = 8


def contamination(rows: pl.DataFrame, benchmark: pl.DataFrame) -> pl.Series:
    """Why each row may not be trained on, in words; null where it may.

    `rows` has `pmid`, `question`, `title`, `context_pmids` (list) and `text` (all that a model would
    read); `benchmark` has `pmid` (null where an item has none) and `question`. Exact: PMIDs, questions
    equal but for case and punctuation, and eight words in a row, as datatrove and others use n-grams.
    One pass of an Aho-Corasick automaton over the text, whatever the size of the benchmark.
    """
    pmids = benchmark["pmid"].drop_nulls().unique().implode()
    questions = benchmark.select(normalised(pl.col("question"))).to_series().unique()
    long_questions = questions.filter(questions.str.count_matches(" ") > NGRAM_WORDS).implode()
    runs = pl.Series(sorted(ngrams(questions)), dtype=pl.String).implode()
    asked = normalised(pl.col("question"))
    # Two blanks where they meet: no run of words goes from one into the other.
    asking = pl.concat_str(asked, normalised(pl.col("title")), ignore_nulls=True)
    return rows.select(
        pl.when(pl.col("pmid").is_in(pmids))
        .then(pl.lit("the source is a benchmark citation"))
        .when(pl.col("context_pmids").list.set_intersection(pmids).list.len() > 0)
        .then(pl.lit("a context is a benchmark citation"))
        .when(asked.is_in(questions.implode()))
        .then(pl.lit("asks a benchmark question"))
        .when(asking.str.contains_any(runs))
        .then(pl.lit(f"shares {NGRAM_WORDS} words in a row with a benchmark question"))
        .when(normalised(pl.col("text")).str.contains_any(long_questions))
        .then(pl.lit("its text holds a benchmark question"))
        .alias("reason")
    ).to_series()


def benchmark_questions(items: Iterable[tuple[int | str | None, str]]) -> pl.DataFrame:
    """The table that `contamination` takes, of (PMID, question) pairs."""
    rows = [(None if pmid is None else int(pmid), question) for pmid, question in items]
    return pl.DataFrame(rows, schema={"pmid": pl.Int64, "question": pl.String}, orient="row")


def normalised(text: pl.Expr) -> pl.Expr:
    """Text as its lower-case words between single blanks, one before and one after.

    Compatibility forms (ligatures, full-width letters) are resolved and punctuation left out, so that
    equal wording is an equal string and `in` finds whole words only.
    """
    words = text.str.normalize("NFKC").str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", " ")
    return pl.format(" {} ", words.str.strip_chars())


def ngrams(texts: Iterable[str], size: int = NGRAM_WORDS) -> set[str]:
    """Every run of `size` words of normalised texts, itself normalised; none of a shorter text."""
    found = set()
    for text in texts:
        words = text.split()
        found |= {f" {' '.join(words[at : at + size])} " for at in range(len(words) - size + 1)}
    return found
