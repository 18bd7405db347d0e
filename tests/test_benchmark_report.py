"""The report on benchmarks: what it says first, its verdicts, and what it shows of scores and pictures."""

import io
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from benchmark_answers import answer, answers, asked_in, choices, item, items, texts
from tiny_corpus import training_example, training_examples

from mkailin_assets.corpus import assembly
from mkailin_assets.corpus.decontamination import BENCHMARK
from mkailin_assets.corpus.tables import TrainingExample
from mkailin_assets.evaluation.baselines import baselines
from mkailin_assets.evaluation.benchmark import (
    LARGE,
    SMALL,
    Evaluated,
    corpus_verdict,
    files,
    render,
    verdict_of,
)
from mkailin_assets.evaluation.benchmark_pictures import TASKS, pictures
from mkailin_assets.evaluation.contamination import LEAKS, Recheck, recheck
from mkailin_assets.evaluation.published import PUBLISHED
from mkailin_assets.evaluation.scores import comparisons, results
from mkailin_assets.evaluation.tables import METRICS, BenchmarkComparison
from mkailin_assets.training.checkpoints import SMALL_LLAMA
from mkailin_assets.training.tables import Checkpoint

YES, NO, BITS = "yes", "no", "bits_per_byte"
NOTHING = Recheck(pl.DataFrame(schema=LEAKS), examples=30, items=7)


# Contamination


def corpus(*rows: dict[str, Any]) -> pl.LazyFrame:
    return pl.concat(
        [
            training_examples(),
            pl.DataFrame(list(rows), schema=TrainingExample.create_empty().schema),
        ]
    ).lazy()


def example(pmid: int, split: str, question: str, **other: Any) -> dict[str, Any]:
    made = training_example(
        pmid, split, question=question, context="We looked.", decision=YES, long_answer="It was so."
    )
    return {"example_hash": "hash"} | made | other


def made_of(pmid: int) -> list[dict[str, Any]]:
    return [{"use": "context", "pmid": pmid, "content_hash": "hash"}]


NO_BENCHMARK = pl.DataFrame(schema=BENCHMARK)
MEASURED = items(
    item("11", question="Can the colour of a ward change how long patients of all ages stay in it?", pmid=11),
    item("12", question="Is walking to work good for the heart of an office worker?", pmid=12),
)


def test_what_was_trained_on_is_looked_through_for_measured_items() -> None:
    asked = MEASURED["question"][0]
    found = recheck(
        corpus(
            example(501, "train", asked),
            example(502, "validation", "Does it?", made_of=made_of(12)),
            example(503, "train", "Is walking to work good for the heart of a nurse?"),
        ),
        MEASURED,
        NO_BENCHMARK,
    )
    told = found.leaks.select("example_id", "split", "item", "shared").rows()
    assert set(told) == {
        ("example-501", "train", "11", "its whole question"),
        ("example-501", "train", "11", "8 words in a row of its question"),
        ("example-502", "validation", "12", "the citation that the item is about"),
        ("example-503", "train", "12", "8 words in a row of its question"),
    }
    assert (found.examples, found.items) == (33, 2)


def test_the_held_out_split_may_ask_what_it_likes() -> None:
    found = recheck(corpus(example(501, "test", MEASURED["question"][0])), MEASURED, NO_BENCHMARK)
    assert found.leaks.is_empty()


def test_a_citation_that_only_the_benchmarks_table_knows_counts_and_what_is_not_measured_does_not() -> None:
    benchmark = pl.DataFrame(
        [("pqa", "11", 501, "Anything?"), ("pqa", "99", 502, "Not measured?")], schema=BENCHMARK, orient="row"
    )
    found = recheck(corpus(example(501, "train", "A?"), example(502, "train", "B?")), MEASURED, benchmark)
    assert found.leaks.select("example_id", "item").rows() == [("example-501", "11")]


def test_the_corpus_is_read_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = corpus(example(501, "train", MEASURED["question"][0]))
    whole = recheck(asked, MEASURED, NO_BENCHMARK)
    sizes: list[int] = []
    look = assembly.leaks
    in_batches = assembly.in_batches

    def looked(rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
        sizes.append(rows.height)
        return look(rows, known)

    monkeypatch.setattr(assembly, "leaks", looked)
    monkeypatch.setattr(assembly, "in_batches", lambda rows: in_batches(rows, 10))
    assert recheck(asked, MEASURED, NO_BENCHMARK).leaks.equals(whole.leaks)
    assert sizes == [10, 10, 10, 1]


def test_an_empty_corpus_gives_nothing_away() -> None:
    found = recheck(TrainingExample.create_empty().lazy(), MEASURED, NO_BENCHMARK)
    assert (found.leaks.height, found.examples) == (0, 0)
    assert dict(found.leaks.schema) == dict(LEAKS)


# Verdicts


def verdict(better: bool | None, metric: str = "accuracy", **other: Any) -> dict[str, Any]:
    """A row of BenchmarkComparison of the fine-tuned model and its base."""
    size = {True: 0.031, False: -0.031, None: 0.004}[better]
    ends = {True: (0.004, 0.059), False: (-0.059, -0.004), None: (-0.021, 0.029)}[better]
    if metric == BITS:
        size, ends = -size, (-ends[1], -ends[0])
    return {
        "benchmark": "pqa",
        "task": "pubmedqa_question_only",
        "form": "likelihood",
        "cohort": "all",
        "metric": metric,
        "model": "finetuned",
        "other": "base",
        "items": 500,
        "difference": size,
        "low": ends[0],
        "high": ends[1],
        "better": better,
        "mcnemar": 0.02 if metric == "accuracy" else None,
    } | other


def leads(*rows: dict[str, Any]) -> pl.DataFrame:
    schema = BenchmarkComparison.create_empty().schema
    return BenchmarkComparison.validate(pl.DataFrame(list(rows), schema=schema))


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (verdict(True), "fine-tuned is better than its base by 3.1 points (0.4 to 5.9)"),
        (verdict(False), "fine-tuned is worse than its base by 3.1 points (0.4 to 5.9)"),
        (
            verdict(None, other="majority"),
            "no difference of fine-tuned and the most frequent answer that chance could not make "
            "(+0.4 points, -2.1 to +2.9)",
        ),
        (verdict(True, BITS), "fine-tuned needs 0.031 bits a byte less than its base (0.004 to 0.059)"),
        (verdict(False, BITS), "fine-tuned needs 0.031 bits a byte more than its base (0.004 to 0.059)"),
    ],
)
def test_a_difference_is_told_in_a_sentence(row: dict[str, Any], sentence: str) -> None:
    assert verdict_of(row) == sentence


OF_TWO = "of 2 measures the fine-tuned model is better than its base"


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (True, True, f"yes; {OF_TWO} in 2 and worse in 0"),
        (True, None, f"in part; {OF_TWO} in 1 and worse in 0"),
        (True, False, f"in part; {OF_TWO} in 1 and worse in 1"),
        (None, None, f"not so that it could be told from chance; {OF_TWO} in 0 and worse in 0"),
        (None, False, f"no, it did harm; {OF_TWO} in 0 and worse in 1"),
    ],
)
def test_whether_the_corpus_helped_is_told_whichever_way_it_falls(
    first: bool | None, second: bool | None, said: str
) -> None:
    asked = {"task": "corpus_answer", "benchmark": "corpus"}
    table = leads(
        verdict(first, BITS, **asked),
        verdict(second, BITS, **(asked | {"task": "corpus_text"})),
        # Nobody asks the corpus for MedQA, nor whether the fine-tuned model beats the pre-trained one.
        verdict(False, task="medqa"),
        verdict(False, BITS, other="pretrained", **asked),
    )
    found = corpus_verdict(table, NOTHING)
    assert found.held_out.startswith(said)
    assert found.pubmedqa == "not measured"
    assert len(found.reasons) == 2


def test_a_model_that_only_learnt_the_most_frequent_answer_is_seen_through() -> None:
    found = corpus_verdict(leads(verdict(True), verdict(None, other="majority")), NOTHING)
    assert found.pubmedqa.endswith("and better than the most frequent answer in 0 of 1")
    assert any("the most frequent answer that chance could not make" in reason for reason in found.reasons)


def test_the_verdict_is_of_clean_items_where_some_are_contaminated() -> None:
    rows = [verdict(True), verdict(True, form="generation")]
    rows += [verdict(None, cohort="clean"), verdict(True, form="generation", cohort="clean")]
    found = corpus_verdict(leads(*rows), leaked(rows[0]["benchmark"]))
    assert found.pubmedqa.startswith(f"in part; {OF_TWO} in 1")
    assert found.reasons[0].startswith("PubMedQA, question only, likeliest answer, clean items: no diff")


def test_a_benchmark_of_which_every_item_is_contaminated_says_nothing() -> None:
    row = verdict(True)
    assert corpus_verdict(leads(row), leaked(row["benchmark"])).pubmedqa == "not measured"


def leaked(benchmark: str) -> Recheck:
    row = {name: "" for name in LEAKS} | {"benchmark": benchmark, "pmid": 1}
    return Recheck(pl.DataFrame([row], schema=LEAKS), examples=30, items=7)


# The report


def checkpoints(base: str = f"{SMALL_LLAMA}, 3,456,789 parameters") -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "name": name,
                "uri": "/somewhere/on/this/machine",
                "fingerprint": f"fingerprint-{name}",
                "base_model": base,
                "recipe": "embedded",
                "method": "full",
                "examples": 4000,
                "tokens": 123456,
                "steps": 300,
            }
            for name in ("pretrained", "finetuned")
        ],
        schema=Checkpoint.create_empty().schema,
    )


def evaluated(table: pl.DataFrame, found: Recheck = NOTHING) -> Evaluated:
    known = asked_in(table).with_columns(
        year=pl.lit(2010, pl.Int32), headings=pl.lit(["Female"]), human=pl.lit(YES)
    )
    whole = pl.concat([table, baselines(table, known)])
    return Evaluated(
        answers=whole,
        results=results(whole, known, found.leaks),
        comparisons=comparisons(whole, known, found.leaks),
        recheck=found,
        checkpoints=checkpoints(),
        harness="a harness 1.2",
        skipped={"nfcorpus": "its questions are searched for"},
    )


GOLD = [YES, NO] * 8


@pytest.fixture(scope="module")
def measured() -> pl.DataFrame:
    """A fine-tuned model that knows, a base that does not; the base writes nothing."""
    rows = [*choices(GOLD, GOLD), *choices(GOLD, [YES] * 16, model="base")]
    rows += [*choices(GOLD, [None] * 16, model="base", form="generation")]
    rows += [*choices(GOLD, [None, *GOLD[1:]], form="generation")]
    for subject in ("anatomy", "virology"):
        about = {"benchmark": f"mmlu/{subject}", "task": f"mmlu_{subject}"}
        rows += choices(list("ABCD"), list("ABCA"), **about)
        rows += choices(list("ABCD"), list("AAAA"), **about, model="base")
    rows += [*texts([9.0, 8.0], 10, "base"), *texts([5.0, 6.0], 10, "finetuned")]
    rows += [answer("1", YES, YES, task="corpus_decision", benchmark="corpus")]
    return answers(*rows)


@pytest.fixture(scope="module")
def told(measured: pl.DataFrame) -> Evaluated:
    return evaluated(measured)


@pytest.fixture(scope="module")
def published(told: Evaluated) -> dict[str, bytes]:
    return files(told, pictures(told.results))


@pytest.fixture(scope="module")
def report(published: dict[str, bytes]) -> str:
    return published["benchmark_report.md"].decode()


def section(report: str, title: str) -> str:
    [found] = [part for part in report.split("\n## ") if part.startswith(f"{title}\n")]
    return found


def test_a_clean_report_says_so_first(report: str) -> None:
    assert report.startswith("# Benchmark report\n\nNo contamination found: none of the 30 examples")


def test_contamination_is_what_a_report_says_first(measured: pl.DataFrame) -> None:
    rows = [(f"e{place}", place, "train", "pqa", "1", "its whole question") for place in range(7)]
    found = Recheck(pl.DataFrame(rows, schema=LEAKS, orient="row"), 30, 7)
    text = render(evaluated(measured, found))
    assert text.startswith("# Benchmark report\n\n**CONTAMINATED: 7 of the 30 examples")
    assert "give away 1 of 7 measured items" in text[:250]
    assert text.count("- example e") == 5
    assert "- and 2 more" in text
    asked = section(text, TASKS["pubmedqa_reasoning_required"])
    assert "| fine-tuned | likeliest | all | 16 | 0 | 100.0%" in asked
    assert "| fine-tuned | likeliest | clean | 15 | 0 | 100.0%" in asked


def test_a_report_says_whether_the_corpus_helped_before_any_figure(report: str) -> None:
    order = [report.index(f"## {title}") for title in ("Did the corpus help?", "Read this first", "Models")]
    assert order == sorted(order)
    assert "On PubMedQA: yes; of 2 measures" in section(report, "Did the corpus help?")
    assert "fine-tuned needs 0.433 bits a byte less than its base" in section(report, "Did the corpus help?")


def test_a_report_says_how_much_its_base_can_tell(told: Evaluated, report: str) -> None:
    assert SMALL in report
    large = replace(told, checkpoints=checkpoints("Meta-Llama-3-70B"))
    assert LARGE.format("Meta-Llama-3-70B") in render(large)
    assert SMALL not in render(large)


def test_a_report_names_models_by_what_made_them_and_no_place(told: Evaluated) -> None:
    text = render(replace(told, checkpoints=checkpoints("Meta-Llama-3-70B")))
    models = section(text, "Models")
    assert "Base: Meta-Llama-3-70B. Asked through a harness 1.2." in models
    assert "pre-trained: recipe embedded, full, 4,000 examples, 123,456 tokens, 300 steps" in models
    assert "checkpoint fingerprint-pretrained" in models
    assert "| fine-tuned | fingerprint of finetuned | abababababab |" in models
    assert "/somewhere" not in text
    assert "/models" not in text


def test_models_come_before_baselines_and_each_form_has_its_row(report: str) -> None:
    asked = section(report, TASKS["pubmedqa_reasoning_required"]).splitlines()
    rows = [line.split(" | ")[:2] for line in asked if line.startswith("| ") and "all | 16 |" in line]
    assert rows == [
        ["| base", "likeliest"],
        ["| fine-tuned", "likeliest"],
        ["| base", "written"],
        ["| fine-tuned", "written"],
        ["| by chance", "no model"],
        ["| most frequent", "no model"],
        ["| one person", "no model"],
    ]


def test_a_difference_has_mcnemars_p(report: str) -> None:
    # 8 items that one alone has right: 2 / 2^8.
    told = section(report, TASKS["pubmedqa_reasoning_required"])
    assert "| likeliest | all | accuracy | fine-tuned is better than its base by 50.0 points" in told
    assert "| 0.008 |" in told


def test_who_answered_nothing_is_told(report: str) -> None:
    assert "| base | written | all | 16 | 16 | answered nothing | answered nothing |" in report
    silent = section(report, "Not answered")
    asked = "PubMedQA, with the abstract (pqa), written"
    assert f"- base, {asked}: 16 of 16 items; the first, item 1: it says nothing" in silent
    assert f"- fine-tuned, {asked}: 1 of 16 items; the first, item 1: it says nothing" in silent


def test_cohorts_and_subjects_are_tables(report: str) -> None:
    periods = section(report, "PubMedQA by publication period")
    assert "| model | answer | 2010-2011 (16) |" in periods
    assert "| fine-tuned minus base, points | likeliest | +50.0 (" in periods
    assert "chance would make about 0" in periods
    assert "| model | answer | Female (16) |" in section(report, "PubMedQA by MeSH heading")
    subjects = section(report, "MMLU by subject")
    assert "| MMLU, anatomy (4) | MMLU, virology (4) |" in subjects
    assert "| fine-tuned | likeliest | 75.0%" in subjects


def test_what_was_not_measured_is_told(told: Evaluated, report: str) -> None:
    assert "- nfcorpus: its questions are searched for" in section(report, "Not measured")
    assert "## Not measured" not in render(replace(told, skipped={}))


def test_figures_of_others_are_those_of_what_was_measured_with_their_sources(report: str) -> None:
    told = section(report, "Figures of others")
    assert "| PubMedQA, with the abstract | GPT-4 with MedPrompt | accuracy 82.0% |" in told
    assert "Nature Medicine" in told
    assert "MedMCQA" not in told
    for line in told.splitlines():
        if line.startswith("| ") and line.endswith("] |"):
            assert f"\n{line.rsplit('[', 1)[1].removesuffix('] |')}. " in told


def test_every_published_figure_is_of_a_task_and_says_where_it_is_from() -> None:
    for figure in PUBLISHED:
        assert figure.task in TASKS
        assert figure.metric in METRICS
        assert 0 < figure.value < 1
        assert "arXiv" in figure.source.where
        assert figure.how
    named = [(figure.who, figure.task, figure.metric, figure.how) for figure in PUBLISHED]
    assert len(named) == len(set(named))
    values = {(figure.who, figure.task, figure.metric): figure.value for figure in PUBLISHED}
    asked = "pubmedqa_reasoning_required"
    assert values["GPT-4 with MedPrompt", asked, "accuracy"] == 0.82
    assert values["Med-PaLM 2", asked, "accuracy"] == 0.818
    assert values["one person", asked, "macro_f1"] == 0.722


def test_results_and_comparisons_are_read_back_from_csv(told: Evaluated, published: dict[str, bytes]) -> None:
    for name, table in (("results", told.results), ("comparisons", told.comparisons)):
        read = pl.read_csv(io.BytesIO(published[f"benchmark_{name}.csv"]), schema=table.schema)
        assert read.equals(table)


# Pictures


def test_the_pictures_lie_beside_the_report(published: dict[str, bytes], report: str) -> None:
    shown = {name for name in published if name.endswith(".png")}
    assert shown == {f"benchmark_{what}.png" for what in ("accuracy", "chrono", "mesh", "bits")}
    for name in shown:
        assert published[name].startswith(b"\x89PNG")
        assert f"]({name})" in report


def test_the_same_scores_give_the_same_pictures(told: Evaluated, published: dict[str, bytes]) -> None:
    drawn = {picture.name: picture for picture in pictures(told.results)}
    assert {name: picture.png for name, picture in drawn.items()}.items() <= published.items()
    accuracy = drawn["benchmark_accuracy.png"].alt
    assert "PubMedQA, with the abstract: base 50%, fine-tuned 100%, fine-tuned 94% written" in accuracy
    assert "one person 50%" in accuracy
    assert "Held-out corpus: texts: base 1.226, fine-tuned 0.793" in drawn["benchmark_bits.png"].alt


def test_there_is_no_picture_of_nothing() -> None:
    table = answers(*choices([YES], [YES], task="corpus_decision", benchmark="corpus"))
    scored = results(table, asked_in(table))
    assert [picture.name for picture in pictures(scored)] == ["benchmark_accuracy.png"]
    assert pictures(scored.clear()) == []
