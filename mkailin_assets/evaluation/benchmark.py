"""The report on what models know: verdicts in words, tables, pictures, and what was not measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mkailin_assets.evaluation.benchmark_pictures import Picture, model_name, task_name, task_place
from mkailin_assets.evaluation.cohorts import ALL, CHRONO, CLEAN, MESH
from mkailin_assets.evaluation.contamination import Recheck
from mkailin_assets.evaluation.published import CLAIM, PUBLISHED
from mkailin_assets.evaluation.scores import LEAST_ITEMS, MMLU, TEXTS
from mkailin_assets.intervals import CONFIDENCE, RESAMPLES
from mkailin_assets.markdown import table_lines
from mkailin_assets.training.checkpoints import is_small

REPORT, RESULTS, COMPARISONS = "benchmark_report.md", "benchmark_results.csv", "benchmark_comparisons.csv"
SMALL = (
    "The base is a Llama of a few million parameters whose weights are random before they are trained, for "
    "minutes, on this corpus alone. It knows no medicine. Its scores show that training and evaluation work, "
    "and whether the corpus moves what it can move: read no more into them."
)
LARGE = (
    "The base is {}. It was trained by others on texts that are not known here, which may hold any of these "
    "benchmarks: its scores, and how they compare with those of others, rest on that, too. What the corpus "
    "did is the difference between this base and what was trained from it."
)
HOW = (
    "No examples in the prompt, one answer an item. The likeliest answer is the label with the highest "
    "log-likelihood; the written one is read from what the model writes. A choice without an answer counts "
    "as wrong, a text without one is left out. 'Most frequent' always gives the most frequent answer of the "
    "benchmark itself, and is the score to beat. Right for the held-out corpus is what its own agents "
    "answered: it shows what was learnt from the corpus, not what is true. Intervals are "
    f"{CONFIDENCE:.0%}: Wilson's for accuracy, a bootstrap over the items ({RESAMPLES:,} draws) for all "
    "else; differences are taken item by item. McNemar's test is exact, and with few items the stricter of "
    "the two."
)
# What the corpus is made to teach, and where it has to show.
HELD_OUT = ("corpus_text", "corpus_answer", "corpus_decision")
PUBMEDQA = ("pubmedqa_reasoning_required", "pubmedqa_question_only")
_FORMS = {"likelihood": "likeliest", "generation": "written", "baseline": "no model"}
METRIC_NAMES = {"accuracy": "accuracy", "macro_f1": "macro-F1", "bits_per_byte": "bits a byte"}
_OTHERS = {"base": "its base", "majority": "the most frequent answer"}
_FIRST_LEAKS = 5
READ_CLEAN = f"Read the scores of clean items alone, in the rows named {CLEAN}."


@dataclass(frozen=True)
class Evaluated:
    """All that a report tells.

    `answers` with the baselines; `checkpoints` rows of table Checkpoint; `harness` names the harness with its
    version; `skipped`: what was not measured, and why.
    """

    answers: pl.DataFrame
    results: pl.DataFrame
    comparisons: pl.DataFrame
    recheck: Recheck
    checkpoints: pl.DataFrame
    harness: str
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class CorpusVerdict:
    """Whether the corpus helped, on its own held-out split and on PubMedQA, and the differences behind it."""

    held_out: str
    pubmedqa: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"On held-out examples of the corpus: {self.held_out}. On PubMedQA: {self.pubmedqa}."


def files(evaluated: Evaluated, drawn: Sequence[Picture]) -> dict[str, bytes]:
    """What is published, by name: the report, results and comparisons as CSV, and the pictures it shows."""
    return {
        REPORT: render(evaluated, drawn).encode(),
        RESULTS: evaluated.results.write_csv().encode(),
        COMPARISONS: evaluated.comparisons.write_csv().encode(),
        **{picture.name: picture.png for picture in drawn},
    }


def render(evaluated: Evaluated, shown: Sequence[Picture] = ()) -> str:
    """The report as Markdown; the pictures lie beside it."""
    verdict = corpus_verdict(evaluated.comparisons, evaluated.recheck)
    lines = [
        "# Benchmark report",
        "",
        contamination_verdict(evaluated.recheck),
        "",
        "## Did the corpus help?",
        "",
        f"**{verdict}**",
        "",
        *[f"- {reason}" for reason in verdict.reasons],
        "",
        "## Read this first",
        "",
        _about_base(evaluated.checkpoints),
        "",
        HOW,
        "",
        "## Models",
        "",
        *_models(evaluated),
    ]
    lines += [line for picture in shown for line in ("", f"![{picture.alt}]({picture.name})")]
    lines += _benchmarks(evaluated)
    lines += _cohorts(evaluated)
    lines += _published(evaluated.results)
    lines += _listed("Not answered", failures(evaluated.answers))
    lines += _listed("Not measured", evaluated.skipped)
    return "\n".join(lines) + "\n"


def contamination_verdict(recheck: Recheck, advice: str = READ_CLEAN) -> str:
    """What stands at the top of a report: whether the training data gives measured items away.

    And whether it is the training data at all.
    """
    lineage = [f"**NOT OF ONE LINEAGE: {'; '.join(recheck.strangers)}.**"] if recheck.strangers else []
    return "\n\n".join([*lineage, _leaks_verdict(recheck, advice)])


def _leaks_verdict(recheck: Recheck, advice: str) -> str:
    looked = f"{recheck.examples:,} examples of the training and validation splits"
    if recheck.leaks.is_empty():
        return f"No contamination found: none of the {looked} gives away any of {recheck.items:,} items."
    items = recheck.leaks.select("benchmark", "item").unique().height
    examples = recheck.leaks["example_id"].n_unique()
    first = [
        f"- example {example} (PMID {pmid}, {split}) shares {shared} with {benchmark}, item {item}"
        for example, pmid, split, benchmark, item, shared in recheck.leaks.head(_FIRST_LEAKS).iter_rows()
    ]
    more = recheck.leaks.height - len(first)
    return "\n".join(
        [
            f"**CONTAMINATED: {examples:,} of the {looked} give away {items:,} of {recheck.items:,} measured "
            f"items.** {advice}",
            "",
            *first,
            *([f"- and {more:,} more"] if more else []),
        ]
    )


def corpus_verdict(comparisons: pl.DataFrame, recheck: Recheck) -> CorpusVerdict:
    """Whether training on the corpus helped, of a table BenchmarkComparison, however that falls.

    By accuracy and bits a byte, of clean items alone where some are contaminated, not at all where all are.
    The fine-tuned model stands against its base, and against the most frequent answer: who learns to give
    that passes a base, and knows nothing.
    """
    told = _without_contaminated(comparisons, recheck).filter(
        pl.col("task").is_in([*HELD_OUT, *PUBMEDQA]), pl.col("metric") != "macro_f1"
    )
    rows = sorted(told.iter_rows(named=True), key=lambda row: task_place(row["task"]))
    held_out, pubmedqa = ([row for row in rows if row["task"] in tasks] for tasks in (HELD_OUT, PUBMEDQA))
    reasons = [
        f"{_where(row)}: {verdict_of(row)}."
        for row in rows
        if row["other"] != "pretrained" and (row["model"] == "finetuned" or row["metric"] == "bits_per_byte")
    ]
    return CorpusVerdict(_in_short(held_out), _in_short(pubmedqa), tuple(reasons))


def verdict_of(row: Mapping[str, Any]) -> str:
    """A row of a table BenchmarkComparison as a sentence without its end."""
    model, other = model_name(row["model"]), _OTHERS.get(row["other"], model_name(row["other"]))
    in_bits = row["metric"] == "bits_per_byte"
    unit, number, factor = ("bits a byte", ".3f", 1) if in_bits else ("points", ".1f", 100)
    size, low, high = (factor * row[name] for name in ("difference", "low", "high"))
    if row["better"] is None:
        interval = f"{size:+{number}} {unit}, {low:+{number}} to {high:+{number}}"
        return f"no difference of {model} and {other} that chance could not make ({interval})"
    least, most = sorted((abs(low), abs(high)))
    by, interval = f"{abs(size):{number}} {unit}", f"({least:{number}} to {most:{number}})"
    if in_bits:
        return f"{model} needs {by} {'more' if size > 0 else 'less'} than {other} {interval}"
    return f"{model} is {'better' if size > 0 else 'worse'} than {other} by {by} {interval}"


def failures(answers: pl.DataFrame) -> dict[str, str]:
    """Who gave no answer where, to how many items, and the first cause."""
    failed = pl.col("answer").is_null() & pl.col("nats").is_null()
    counted = answers.group_by("benchmark", "task", "form", "model", maintain_order=True).agg(
        asked=pl.len(),
        failed=failed.sum(),
        item=pl.col("item").filter(failed).first(),
        cause=pl.col("failure").filter(failed).first(),
    )
    return {
        f"{model_name(row['model'])}, {task_name(row['task'])} ({row['benchmark']}), {_FORMS[row['form']]}": (
            f"{row['failed']:,} of {row['asked']:,} items; the first, item {row['item']}: "
            f"{row['cause'] or 'no cause is known'}"
        )
        for row in counted.filter(pl.col("failed") > 0).iter_rows(named=True)
    }


def _in_short(rows: Sequence[Mapping[str, Any]]) -> str:
    over_base, over_majority = (
        [row["better"] for row in rows if (row["model"], row["other"]) == ("finetuned", other)]
        for other in ("base", "majority")
    )
    if not over_base:
        return "not measured"
    better, worse = over_base.count(True), over_base.count(False)
    if better == len(over_base):
        answer = "yes"
    elif better or worse:
        answer = "in part" if better else "no, it did harm"
    else:
        answer = "not so that it could be told from chance"
    measures = f"{len(over_base)} measure{'s' if len(over_base) > 1 else ''}"
    short = f"{answer}; of {measures} the fine-tuned model is better than its base in {better}"
    short += f" and worse in {worse}"
    if over_majority:
        short += f", and better than the most frequent answer in {over_majority.count(True)}"
        short += f" of {len(over_majority)}"
    return short


def _without_contaminated(table: pl.DataFrame, recheck: Recheck) -> pl.DataFrame:
    """The rows over all items, or over the clean ones where some are not."""
    contaminated = pl.col("benchmark").is_in(recheck.leaks["benchmark"].unique().implode())
    return table.filter(((pl.col("cohort") == ALL) & ~contaminated) | (pl.col("cohort") == CLEAN))


def _where(row: Mapping[str, Any]) -> str:
    form = "" if row["metric"] == "bits_per_byte" else f", {_FORMS[row['form']]} answer"
    clean = ", clean items" if row["cohort"] == CLEAN else ""
    return f"{task_name(row['task'])}{form}{clean}"


def _models(evaluated: Evaluated) -> list[str]:
    made = [
        f"- {model_name(row['name'])}: recipe {row['recipe']}, {row['method']}, {row['examples']:,} "
        f"examples, {row['tokens']:,} tokens, {row['steps']:,} steps; checkpoint {row['fingerprint']}"
        for row in evaluated.checkpoints.iter_rows(named=True)
    ]
    asked = (
        evaluated.answers.filter(pl.col("model_fingerprint").is_not_null())
        .select("model", "model_fingerprint", "tokenizer_sha256")
        .unique(maintain_order=True)
    )
    rows = [
        [model_name(model), weights, (words or "none")[:12]] for model, weights, words in asked.iter_rows()
    ]
    return [
        f"Base: {_base(evaluated.checkpoints)}. Asked through {evaluated.harness}.",
        "",
        *made,
        "",
        *table_lines(["asked as", "model fingerprint", "tokenizer and template"], rows),
    ]


def _benchmarks(evaluated: Evaluated) -> list[str]:
    lines: list[str] = []
    tasks = evaluated.results.filter(~_of_subject()).select("benchmark", "task").unique().rows()
    for benchmark, task in sorted(tasks, key=lambda key: (task_place(key[1]), key)):
        scores, leads = (
            table.filter(pl.col("cohort").is_in([ALL, CLEAN]), benchmark=benchmark, task=task)
            for table in (evaluated.results, evaluated.comparisons)
        )
        size = max(scores["items"].to_list())
        lines += ["", f"## {task_name(task)}", "", f"{benchmark}, {size:,} items.", ""]
        lines += [*_scores(scores), "", *(_leads(leads) if leads.height else ["No two models to compare."])]
    subjects, leads = (
        table.filter(_of_subject(), cohort=ALL) for table in (evaluated.results, evaluated.comparisons)
    )
    if subjects.height:
        lines += ["", "## MMLU by subject", "", f"Accuracy. {_by_chance(leads)}", ""]
        lines += _grid(subjects, leads, "task", task_name)
    return lines


def _of_subject() -> pl.Expr:
    return pl.col("task").str.starts_with(f"{MMLU}_")


def _scores(scores: pl.DataFrame) -> list[str]:
    forms = _FORMS | (dict.fromkeys(_FORMS, "read") if scores["task"][0] in TEXTS else {})
    metrics = [metric for metric in METRIC_NAMES if metric in scores["metric"]]
    key = ["model", "form", "cohort", "items", "failures"]
    rows = []
    for (model, form, cohort, items, failed), of_model in scores.group_by(key, maintain_order=True):
        values = {row["metric"]: row for row in of_model.iter_rows(named=True)}
        cells = [
            "answered nothing" if failed == items else shown_value(values.get(metric)) for metric in metrics
        ]
        rows.append(
            [model_name(str(model)), forms[str(form)], str(cohort), f"{items:,}", f"{failed:,}", *cells]
        )
    named = ["model", "answer", "items", "asked", "no answer", *[METRIC_NAMES[metric] for metric in metrics]]
    return table_lines(named, rows)


def _leads(leads: pl.DataFrame) -> list[str]:
    rows = [
        [
            "read" if row["task"] in TEXTS else _FORMS[row["form"]],
            row["cohort"],
            METRIC_NAMES[row["metric"]],
            verdict_of(row),
            "" if row["mcnemar"] is None else _p(row["mcnemar"]),
        ]
        for row in leads.iter_rows(named=True)
    ]
    return table_lines(["answer", "items", "measure", "difference (interval)", "McNemar's p"], rows)


def _cohorts(evaluated: Evaluated) -> list[str]:
    lines: list[str] = []
    for cohorts, what in ((CHRONO, "PubMedQA by publication period"), (MESH, "PubMedQA by MeSH heading")):
        inside = pl.col("cohort").is_in(cohorts) & (pl.col("metric") == "accuracy")
        scores = evaluated.results.filter(inside)
        if scores.is_empty():
            continue
        leads = evaluated.comparisons.filter(inside)
        lines += ["", f"## {what}", "", f"Accuracy, where a cohort has {LEAST_ITEMS} items or more."]
        lines += [_by_chance(leads)]
        tasks = scores.select("benchmark", "task").unique().rows()
        for benchmark, task in sorted(tasks, key=lambda key: (task_place(key[1]), key)):
            asked = pl.col("benchmark").eq(benchmark) & pl.col("task").eq(task)
            lines += ["", f"{task_name(task)}, {benchmark}:", ""]
            lines += _grid(scores.filter(asked), leads.filter(asked), "cohort", str)
    return lines


def _by_chance(leads: pl.DataFrame) -> str:
    """How many differences have an interval without 0, beside how many would if there were none."""
    apart, expected = leads["better"].count(), (1 - CONFIDENCE) * leads.height
    return (
        f"Of {leads.height} differences of two models here, {apart} have an interval without 0; if no model "
        f"were better than another, chance would make about {expected:.0f}."
    )


def _grid(scores: pl.DataFrame, leads: pl.DataFrame, across: str, named: Callable[[str], str]) -> list[str]:
    """Scores of one metric: a row for each model, a column for each value of `across` with its items.

    Below them the lead of the fine-tuned model over its base.
    """
    sizes = dict(scores.group_by(across, maintain_order=True).agg(pl.col("items").max()).iter_rows())
    rows = []
    for (model, form), of_model in scores.group_by("model", "form", maintain_order=True):
        values = {row[across]: row for row in of_model.iter_rows(named=True)}
        rows.append(
            [model_name(str(model)), _FORMS[str(form)], *[shown_value(values.get(value)) for value in sizes]]
        )
    ahead = leads.filter(model="finetuned", other="base")
    for (form,), of_form in ahead.group_by("form", maintain_order=True):
        values = {row[across]: row for row in of_form.iter_rows(named=True)}
        cells = [_points(values.get(value)) for value in sizes]
        rows.append(["fine-tuned minus base, points", _FORMS[str(form)], *cells])
    return table_lines(
        ["model", "answer", *[f"{named(value)} ({size:,})" for value, size in sizes.items()]], rows
    )


def _published(results: pl.DataFrame) -> list[str]:
    measured = results["task"].unique().to_list()
    figures = sorted(
        (figure for figure in PUBLISHED if figure.task in measured),
        key=lambda figure: (task_place(figure.task), figure.metric, -figure.value),
    )
    sources = list(dict.fromkeys(figure.source for figure in figures))
    rows = [
        [
            task_name(figure.task),
            figure.who,
            f"{METRIC_NAMES[figure.metric]} {figure.value:.1%}",
            figure.how,
            f"[{sources.index(figure.source) + 1}]",
        ]
        for figure in figures
    ]
    if not rows:
        return []
    told = [
        f"{place}. {one.title} ({one.year}), {one.where}{one.seen_in and f'; read in {one.seen_in}'}"
        for place, one in enumerate(sources, 1)
    ]
    return [
        "",
        "## Figures of others",
        "",
        "For orientation: they were measured as the table says, which is not as here. " + CLAIM,
        "",
        *table_lines(["benchmark", "who", "score", "how", "source"], rows),
        "",
        *told,
    ]


def _listed(title: str, told: Mapping[str, str]) -> list[str]:
    return ["", f"## {title}", "", *[f"- {who}: {why}" for who, why in told.items()]] if told else []


def _about_base(checkpoints: pl.DataFrame) -> str:
    return SMALL if is_small(checkpoints["base_model"]) else LARGE.format(_base(checkpoints))


def _base(checkpoints: pl.DataFrame) -> str:
    return ", ".join(checkpoints["base_model"].unique(maintain_order=True)) or "not told"


def shown_value(row: Mapping[str, Any] | None) -> str:
    """A row of a table BenchmarkResult as its value with its interval; empty where there is none."""
    if row is None:
        return ""
    number = ".3f" if row["metric"] == "bits_per_byte" else ".1%"
    return f"{row['value']:{number}} ({row['low']:{number}} to {row['high']:{number}})"


def _points(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    size, low, high = (100 * row[name] for name in ("difference", "low", "high"))
    return f"{size:+.1f} ({low:+.1f} to {high:+.1f})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
