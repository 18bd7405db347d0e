"""Cohorts of PubMedQA: by when the abstract was published, and by whom it is about.

The periods of PubMedQA-Chrono and the headings of PubMedQA-MeSH are those of the m-KAILIN paper's authors
(arXiv 2504.19565). Headings are compared whole: as parts of words, Male is in Female and Aged in Middle Aged.
"""

import polars as pl

ALL, CLEAN = "all", "clean"
PERIODS = (
    (1989, 2000),
    (2001, 2004),
    (2005, 2007),
    (2008, 2009),
    (2010, 2011),
    (2012, 2013),
    (2014, 2015),
    (2016, 2017),
)
CHRONO = tuple(f"{first}-{last}" for first, last in PERIODS)
MESH = ("Female", "Male", "Middle Aged", "Aged", "Adult", "Adolescent")


def cohorts(items: pl.DataFrame) -> pl.DataFrame:
    """The cohorts of PubMedQA's items: benchmark, item, cohort; an item may be in several or in none.

    `items` is `MeasuredItems.table`. Periods do not overlap; headings do. Who is in no period was published
    in none of them, or the file has no year.
    """
    asked = items.filter(kind="pubmedqa")
    period = pl.coalesce(
        pl.when(pl.col("year").is_between(first, last)).then(pl.lit(name))
        for (first, last), name in zip(PERIODS, CHRONO, strict=True)
    )
    headings = pl.col("headings").list.set_intersection(list(MESH))
    return pl.concat(
        [
            asked.select("benchmark", "item", cohort=period).drop_nulls("cohort"),
            asked.select("benchmark", "item", cohort=headings).explode("cohort").drop_nulls("cohort"),
        ]
    )
