"""Who asks the questions of the corpus: the contestant whose questions fit best, by a held-out trial."""

import polars as pl

from mkailin_assets.intervals import columns_of
from mkailin_assets.preferences.tables import QuestionChampion
from mkailin_assets.preferences.trial import is_better, lead, score_of
from mkailin_assets.questions.tables import TrainedGenerator

BEST_OF_TWO = "best of two"


def choose(tried: pl.DataFrame, trained: pl.DataFrame) -> pl.DataFrame:
    """The `QuestionChampion` table: best of two, and each trained generator, best first.

    `tried` is what `Trial.scores` gives, with a row for each held-out citation and contestant; `trained`
    names the contestants that are generators: contestant, and the columns of `TrainedGenerator`. A generator
    is champion where its questions score higher than the better of the two candidates by more than chance:
    the 95% interval of the lead lies above 0. Of several the one with the highest mean, of equal ones the
    first. With fewer than twenty held-out citations nobody can show that, and best of two asks.
    """
    names = [BEST_OF_TWO, *trained["contestant"]]
    documents = tried.filter(contestant=BEST_OF_TWO).height
    rows, better = [], []
    for name in names:
        row = {"contestant": name, "documents": documents, "questions": 0, "is_champion": False}
        if documents:
            score = score_of(tried, name)
            asked = tried.filter(pl.col("question").is_not_null(), contestant=name).height
            row |= {"questions": asked, **columns_of("score", score)}
            if name != BEST_OF_TWO:
                ahead = lead(tried, name, BEST_OF_TWO)
                row |= columns_of("lead", ahead)
                better += [row] if is_better(ahead, documents) else []
        rows.append(row)
    champion = max(better, key=lambda row: row["score"], default=rows[0])
    champion["is_champion"] = True
    schema = QuestionChampion.create_empty().schema
    described = trained.select("contestant", *TrainedGenerator.create_empty().columns)
    own = {name: kind for name, kind in schema.items() if name not in TrainedGenerator.columns()}
    return (
        pl.DataFrame(rows, schema=own)
        .join(described, on="contestant", how="left", maintain_order="left")
        .sort("is_champion", "score", descending=True, nulls_last=True, maintain_order=True)
        .select(schema.names())
    )


def best_of_two(preferences: pl.DataFrame, citations: pl.DataFrame) -> pl.DataFrame:
    """The preferred candidates of these citations as `Trial.scored` takes questions, under one name.

    `preferences` is `QuestionPreference` of the branches that exist, with a row for each of the citations.
    """
    chosen = preferences.select("pmid", question="chosen_question")
    none = pl.when(pl.col("question").is_null()).then(pl.lit("neither generator wrote a question"))
    return (
        citations.select("pmid", "branch")
        .join(chosen, on="pmid", how="inner", validate="1:1", maintain_order="left")
        .with_columns(role=pl.lit(BEST_OF_TWO), failure=none)
    )


def contestants(domain: pl.DataFrame, general: pl.DataFrame, preferred: pl.DataFrame) -> pl.DataFrame:
    """The trained generators that stand against best of two: contestant, and the columns of TrainedGenerator.

    The two tuned ones, and each round after the start, which is one of them.
    """
    columns = TrainedGenerator.create_empty().columns
    tuned = pl.concat([domain, general]).select(*columns, contestant=pl.format("{} generator", "role"))
    rounds = preferred.filter(pl.col("round") > 0).select(
        *columns, contestant=pl.format("preferred, round {}", "round")
    )
    return pl.concat(
        [tuned.select("contestant", *columns), rounds.select("contestant", *columns)]
    ).drop_nulls("uri")
