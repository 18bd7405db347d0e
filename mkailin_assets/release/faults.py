"""What may be wrong in the examples of a release, whoever signed it.

Each function takes examples as a release has them, with their `split` and the `file` they are in, and gives
a row for each fault: `file`, `fault` (its kind), and what is `told` of it.
"""

from collections.abc import Iterable, Set

import polars as pl

from mkailin_assets.corpus.decontamination import leaks
from mkailin_assets.corpus.draws import split_of
from mkailin_assets.corpus.tables import TrainingExample
from mkailin_assets.corpus.texts import example_hash, example_texts
from mkailin_assets.release.facts import ModelUse

FAULT = pl.Schema({"file": pl.String(), "fault": pl.String(), "told": pl.String()})
_UNCUT = 1 << 62  # characters
_HOME = pl.col("pmid").map_elements(split_of, return_dtype=pl.String)
_MADE_OF = pl.col("made_of").list.eval(pl.element().struct.field("pmid"))
_CITED = pl.concat_list("pmid", "context_pmids", _MADE_OF).list.unique(maintain_order=True)
_NO_TITLE = pl.lit(None, pl.String)
_NO_CONTEXTS = pl.lit([], pl.List(pl.Struct({"title": pl.String, "text": pl.String})))


def out_of_range(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Values that `TrainingExample` does not allow: null, too large, none of its words; and rows without."""
    rules = {
        name: column.validation_rules(pl.col(name)) for name, column in TrainingExample.columns().items()
    }
    valid = rows.select(
        # A rule is null of a value that may be null.
        pl.all_horizontal(*(rule.fill_null(True) for rule in rules[name].values())).alias(name)
        for name in rows.columns
        if rules.get(name)
    )
    found = [
        _faults(rows.filter(~column), f"{column.name} is null or out of range", pl.col("example_id"))
        for column in valid
        if not column.all()
    ]
    sound = rows.filter(valid.select(pl.all_horizontal(pl.all())).to_series())
    return pl.concat([pl.DataFrame(schema=FAULT), *found]), sound


def in_another_split(rows: pl.DataFrame) -> pl.DataFrame:
    """Examples that are not in the split that the PMID of their citation decides."""
    moved = rows.with_columns(home=_HOME).filter(pl.col("home") != pl.col("split"))
    told = pl.format("{} of PMID {} belongs to {}", "example_id", "pmid", "home")
    return _faults(moved, "not in the split of the citation", told)


def showing_held_out(rows: pl.DataFrame) -> pl.DataFrame:
    """Contexts of training examples that are citations of another split."""
    train = rows.filter(split="train").select("file", "example_id", pmid="context_pmids")
    held_out = (
        train.explode("pmid", empty_as_null=False).with_columns(home=_HOME).filter(pl.col("home") != "train")
    )
    told = pl.format("{} shows PMID {} of {}", "example_id", "pmid", "home")
    return _faults(held_out, "shown in training, and held out", told)


def with_other_texts(rows: pl.DataFrame) -> pl.DataFrame:
    """Examples whose texts are not those that their hash is of, or whose messages do not say the same."""
    if "pretraining_text" not in rows.columns:
        return pl.DataFrame(schema=FAULT)
    changed = rows.filter(example_hash(rows) != rows["example_hash"])
    # Messages follow from context, question and answer.
    parts = rows.with_columns(
        title=_NO_TITLE, source_context="context", source_conclusion=_NO_TITLE, contexts=_NO_CONTEXTS
    )
    said = example_texts(parts, _UNCUT)["messages"]
    other = rows.filter(said.ne_missing(rows["messages"]))
    return pl.concat(
        [
            _faults(changed, "texts that the example_hash is not of", pl.col("example_id")),
            _faults(other, "messages that do not follow from the texts", pl.col("example_id")),
        ]
    )


def giving_a_benchmark_away(rows: pl.DataFrame, fingerprints: pl.DataFrame) -> pl.DataFrame:
    """Examples that hold what the fingerprints are of."""
    # What the answer was made from counts, where training does not show it, too.
    found = leaks(rows.with_columns(context_pmids=_CITED), fingerprints).join(
        rows.select("example_id", "file"), on="example_id"
    )
    told = pl.format("{} has a {} of {}, item {}", "example_id", "kind", "benchmark", "item")
    return _faults(found, "gives a benchmark away", told)


def resting_on_taken_back(rows: pl.DataFrame, taken_back: pl.DataFrame) -> pl.DataFrame:
    """Examples that were made of, or show, a citation among those taken back: pmid, state, pubmed_file."""
    cited = rows.select("file", "example_id", pmid=_CITED).explode("pmid")
    found = cited.join(taken_back, on="pmid")
    told = pl.format("{} rests on PMID {}, {} by {}", "example_id", "pmid", "state", "pubmed_file")
    return _faults(found, "rests on what PubMed took back", told)


def by_unknown_writers(rows: pl.DataFrame, models: Iterable[ModelUse]) -> pl.DataFrame:
    """Examples whose question or answer is by none of the models that wrote such."""
    known: Set[tuple[str, str]] = {(model.role, model.name) for model in models if model.wrote}
    found = [pl.DataFrame(schema=FAULT)]
    for role, column in (("question", "generator"), ("answer", "answerer")):
        strangers = set(rows[column].unique()) - {name for known_role, name in known if known_role == role}
        unknown = rows.filter(pl.col(column).is_in(strangers))
        told = pl.format("{} by {}", "example_id", column)
        found.append(_faults(unknown, f"{role} by a model that is not in the manifest", told))
    return pl.concat(found)


def _faults(rows: pl.DataFrame, fault: str, told: pl.Expr) -> pl.DataFrame:
    return rows.select("file", fault=pl.lit(fault), told=told)
