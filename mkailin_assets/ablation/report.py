"""What each agent is worth: the scores of ablated models beside those of the model with all agents."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from mkailin_assets.ablation.ablations import ABLATIONS, ALL_AGENTS, ANOTHER_SEED, TAKEN_OUT
from mkailin_assets.ablation.corpora import differences
from mkailin_assets.ablation.tables import AblationResult
from mkailin_assets.evaluation import scores
from mkailin_assets.evaluation.benchmark import (
    METRIC_NAMES,
    SMALL,
    contamination_verdict,
    shown_value,
    verdict_of,
)
from mkailin_assets.evaluation.benchmark_pictures import task_name, task_place
from mkailin_assets.evaluation.contamination import Recheck
from mkailin_assets.evaluation.items import ITEMS
from mkailin_assets.intervals import CONFIDENCE
from mkailin_assets.markdown import table_lines
from mkailin_assets.training.checkpoints import is_small

REPORT = "ablation_report.md"
HOW = (
    "Each model was trained without one of the agents, on the same base, by the same recipe, with the same "
    "number of steps of the same size: a smaller corpus was read more often. All are asked the same: the "
    "held-out split of training_corpus, which no ablation changes, and PubMedQA. That split is shown with "
    "its contexts, a form that the model without retrieval was not trained on. Differences are taken item by "
    "item from the model with all agents. Intervals are over the items. What another seed of the training "
    "changes, the order of what is read, is not in them, and is measured on its own: a difference that is no "
    "larger is chance. It is one seed: a difference that is little larger may be chance, too."
)
_CHANGES = {
    "same": "as it is",
    "other_text": "another text",
    "other_question": "another question",
    "added": "added",
    "gone": "gone",
}


class NothingAblated(ValueError):
    """No ablation has both its corpus and its model."""


@dataclass(frozen=True)
class Ablated:
    """The ablations that were made, in their order.

    `corpora` has ablation, examples (of the split train) and what `differences` counts, `checkpoints` the
    rows of table AblatedCheckpoint; `missing` are ablations without corpus or checkpoint.
    """

    corpora: pl.DataFrame
    checkpoints: pl.DataFrame
    missing: tuple[str, ...]

    @classmethod
    def of(
        cls,
        corpora: Mapping[str, pl.LazyFrame],
        checkpoints: Mapping[str, pl.DataFrame],
        corpus: pl.LazyFrame,
    ) -> "Ablated":
        """Those that have both; `corpora` are `AblatedExample`, `corpus` is `TrainingExample`.

        Raises `NothingAblated`.
        """
        made = [name for name in ABLATIONS if name in corpora and name in checkpoints]
        if not made:
            raise NothingAblated(
                "no ablation has both a corpus and a model: materialize ablated_checkpoint of those that "
                f"ablated_corpus has ({', '.join(corpora)})"
            )
        sizes = []
        for name in made:
            changes = differences(corpora[name], corpus)
            examples = sum(count for change, count in changes.items() if change != "gone")
            sizes.append({"ablation": name, "examples": examples, **changes})
        return cls(
            pl.DataFrame(sizes),
            pl.concat(checkpoints[name] for name in made),
            tuple(name for name in ABLATIONS if name not in made),
        )

    @property
    def names(self) -> list[str]:
        """Those that were made."""
        return self.checkpoints["ablation"].to_list()

    @property
    def same_as(self) -> dict[str, str]:
        """Of each ablation that has the model of an earlier one, which."""
        first: dict[str, str] = {}
        twins = {}
        for name, fingerprint in self.checkpoints.select("ablation", "fingerprint").iter_rows():
            if first.setdefault(fingerprint, name) != name:
                twins[name] = first[fingerprint]
        return twins


def results(ablated: Ablated, answers: pl.DataFrame) -> pl.DataFrame:
    """Table `AblationResult`; `answers` is `BenchmarkAnswer` of each model once, named as its ablation."""
    no_items = pl.DataFrame(schema=ITEMS)  # and so no cohorts
    scored = scores.results(answers, no_items).rename({"model": "ablation"})
    pairs = [(name, ALL_AGENTS) for name in answers["model"].unique() if name != ALL_AGENTS]
    key = ["ablation", "benchmark", "task", "form", "metric"]
    leads = scores.comparisons(answers, no_items, pairs=pairs).select(
        "difference",
        "better",
        *key[1:],
        ablation="model",
        difference_low="low",
        difference_high="high",
    )
    sizes = ablated.checkpoints.select(
        "ablation", "examples", tokens=pl.col("pretraining_tokens") + pl.col("finetuning_tokens")
    )
    told = _beyond_seed(scored.join(leads, on=key, how="left", validate="1:1"))
    told = told.join(sizes, on="ablation", validate="m:1")
    named = told.with_columns(same_as=pl.lit(None, pl.String))
    same = [
        named.filter(ablation=other).with_columns(ablation=pl.lit(name), same_as=pl.lit(other))
        for name, other in ablated.same_as.items()
    ]
    order = {name: place for place, name in enumerate(ABLATIONS)}
    return (
        pl.concat([named, *same])
        .select(AblationResult.create_empty().columns)
        .sort("benchmark", "task", "form", "metric", pl.col("ablation").replace_strict(order))
    )


def _beyond_seed(scored: pl.DataFrame) -> pl.DataFrame:
    """`better` null where another seed, if there is a model by one, made as large a difference."""
    key = ["benchmark", "task", "form", "metric"]
    by_seed = scored.filter(ablation=ANOTHER_SEED).select(*key, by_seed=pl.col("difference").abs())
    is_larger = (pl.col("difference").abs() > pl.col("by_seed")).fill_null(True)
    return scored.join(by_seed, on=key, how="left", validate="m:1").with_columns(
        better=pl.when(is_larger).then("better")
    )


def contamination(checked: Mapping[str, Recheck]) -> str:
    """What stands at the top: by ablation, whether its corpus gives measured items away."""
    advice = "Read no scores of this model there."
    return (
        "\n\n".join(
            f"{shown(name)}: {contamination_verdict(one, advice)}"
            for name, one in checked.items()
            if one.leaks.height
        )
        or f"No contamination found: none of {len(checked)} corpora gives away any measured item."
    )


def render(ablated: Ablated, results: pl.DataFrame, checked: Mapping[str, Recheck]) -> str:
    """The report as Markdown; `checked` has a last look at each corpus."""
    bases = ablated.checkpoints["base_model"].unique(maintain_order=True)
    lines = ["# What each agent is worth", "", contamination(checked), "", HOW]
    lines += ["", SMALL] if is_small(bases) else []
    lines += ["", f"Base: {', '.join(bases)}.", "", "## In short", ""]
    lines += [f"- {shown(name)}: {verdict}" for name, verdict in in_short(ablated, results).items()]
    lines += ["", by_chance(results), "", "## Corpora and trainings", "", *_corpora(ablated)]
    tasks = results.select("task", "benchmark").unique().rows()
    for task, benchmark in sorted(tasks, key=lambda key: (task_place(key[0]), key)):
        of_task = results.filter(task=task, benchmark=benchmark)
        size = max(of_task["items"].to_list())
        lines += ["", f"## {task_name(task)}", "", f"{benchmark}, {size:,} items.", ""]
        lines += _scores(of_task)
    return "\n".join(lines) + "\n"


def in_short(ablated: Ablated, results: pl.DataFrame) -> dict[str, str]:
    """Of each ablation in a sentence what came of it."""
    told = {}
    for name in ABLATIONS:
        if name in ablated.missing:
            told[name] = "not made: materialize its partitions of ablated_corpus and ablated_checkpoint"
        elif other := ablated.same_as.get(name):
            told[name] = f"the same data, and so the model of {shown(other)}; it is not compared"
        elif name == ANOTHER_SEED:
            told[name] = "what chance alone changes; differences that are no larger tell nothing"
        elif name != ALL_AGENTS:
            told[name] = _verdict(results.filter(ablation=name).drop_nulls("difference"))
    return told


def by_chance(results: pl.DataFrame) -> str:
    """How many differences have an interval without 0, beside how many would if there were none."""
    own = pl.col("same_as").is_null() & (pl.col("ablation") != ANOTHER_SEED)
    compared = results.filter(own).drop_nulls("difference")
    apart = compared.filter((pl.col("difference_low") > 0) | (pl.col("difference_high") < 0))
    is_measured = ANOTHER_SEED in results["ablation"]
    told = f"{apart['better'].count()} of them are larger than what another seed makes"
    return (
        f"Of {compared.height} differences, {apart.height} have an interval without 0; if no agent were "
        f"worth anything, the choice of items would make about {(1 - CONFIDENCE) * compared.height:.0f}. "
        f"{told if is_measured else 'What another seed makes was not measured'}."
    )


def shown(ablation: str) -> str:
    """An ablation as a person reads it."""
    return ablation.replace("_", " ")


def measure(row: Mapping[str, Any]) -> str:
    """Task and metric of a row as a person reads them."""
    return f"{task_name(row['task'])}, {METRIC_NAMES[row['metric']]}"


def _verdict(leads: pl.DataFrame) -> str:
    if leads.is_empty():
        return f"not compared, since {shown(ALL_AGENTS)} is missing"
    told = []
    for better, word in ((False, "worse"), (True, "better")):
        where = [measure(row) for row in leads.filter(better=better).iter_rows(named=True)]
        told += [f"{word} in {len(where)} ({'; '.join(where)})"] if where else []
    found = " and ".join(told) or "no difference that chance could not make"
    return f"of {leads.height} measures, {found}"


def _corpora(ablated: Ablated) -> list[str]:
    rows = []
    both = ablated.corpora.join(ablated.checkpoints.drop("examples"), on="ablation", maintain_order="left")
    for row in both.iter_rows(named=True):
        losses = [row[f"{stage}_validation_loss"] for stage in ("pretraining", "finetuning")]
        rows.append(
            [
                shown(row["ablation"]),
                TAKEN_OUT[row["ablation"]],
                *(f"{row[name]:,}" for name in ("examples", *_CHANGES)),
                *(f"{row[f'{stage}_tokens']:,}" for stage in ("pretraining", "finetuning")),
                *("" if loss is None else f"{loss:.3f}" for loss in losses),
            ]
        )
    head = ["ablation", "without", "examples", *_CHANGES.values()]
    head += ["tokens of pre-training", "of fine-tuning", "held-out loss, texts", "held-out loss, answers"]
    return table_lines(head, rows)


def _scores(of_task: pl.DataFrame) -> list[str]:
    rows = []
    for row in of_task.iter_rows(named=True):
        rows.append(
            [
                METRIC_NAMES[row["metric"]],
                row["form"],
                shown(row["ablation"]),
                shown_value(row),
                _lead(row),
            ]
        )
    return table_lines(["measure", "answer", "ablation", "score (interval)", "difference (interval)"], rows)


def _lead(row: Mapping[str, Any]) -> str:
    if row["same_as"]:
        return f"the model of {shown(row['same_as'])}"
    if row["difference"] is None:
        return ""
    named = {"model": shown(row["ablation"]), "other": shown(ALL_AGENTS)}
    interval = {"low": row["difference_low"], "high": row["difference_high"]}
    return verdict_of({**row, **named, **interval})
