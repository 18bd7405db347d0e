"""Chooses what the sample tells: which studies of which topics, answering what, in which order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from mkailin_resources.sample.material import Event, Factor, Scale, Topic, Treatment, load_table, load_topics
from mkailin_resources.sample.prose import Plan, Study, Writer
from mkailin_resources.sample.results import Verdict

SEED = 20260101
CITATIONS_PER_TOPIC = {"C04": 6, "C10": 6, "C14": 6, "F03": 6, "D12": 6}
CITATIONS_PER_OTHER_TOPIC = 4
VERDICTS: dict[Verdict, int] = {"yes": 11, "no": 7, "maybe": 2}
BENCHMARK: dict[Verdict, int] = {"yes": 33, "no": 21, "maybe": 6}
BENCHMARK_DESIGNS = ("trial", "trial", "trial", "cohort", "casecontrol", "diagnostic", "meta")
BENCHMARK_YEARS = (1989, 2017)
REVISION_HEADING = "Reproducibility of Results"
LAYOUTS = ("classic", "aims", "context", "introduction", "purpose", "long")


@dataclass(frozen=True)
class Composition:
    """The studies of the citations with their plans, those of the benchmark, and the written citations."""

    plans: list[Plan]
    studies: list[Study]
    benchmark: list[Study]
    written: list[dict[str, Any]]


def outcomes_of(topic: Topic, part: Treatment | Factor) -> list[Event | Scale]:
    """Outcomes it may act on: any for a treatment, adverse events alone for a factor."""
    found: list[Event | Scale] = [e for e in topic.event if isinstance(part, Treatment) or not e.good]
    if isinstance(part, Treatment):
        found += topic.scale
    return [outcome for outcome in found if not part.on or outcome.short in part.on]


def plans_of(topic: Topic, design: str, verdict: Verdict) -> Iterator[Plan]:
    """Every study of this design that the material of the topic allows."""
    if design in ("trial", "meta"):
        for treatment in topic.treatment:
            for outcome in outcomes_of(topic, treatment):
                yield Plan(topic, design, verdict, treatment=treatment, outcome=outcome)
    elif design == "cohort":
        for factor in topic.prognosis:
            for outcome in outcomes_of(topic, factor):
                yield Plan(topic, design, verdict, factor=factor, outcome=outcome)
    elif design == "casecontrol":
        yield from (Plan(topic, design, verdict, factor=factor) for factor in topic.risk)
    elif design == "diagnostic":
        yield from (Plan(topic, design, verdict, marker=marker) for marker in topic.marker)
    elif design == "lab":
        yield from (
            Plan(topic, design, "no" if verdict == "maybe" else verdict, lab=lab) for lab in topic.lab
        )
    elif design == "correlation":
        yield from (Plan(topic, design, verdict, outcome=scale) for scale in topic.scale if topic.in_blood)
    elif design == "case":
        yield from (Plan(topic, design) for _ in topic.case)
    elif design == "review":
        yield Plan(topic, design)


def designs_of(topic: Topic, turn: int) -> list[str]:
    """Order in which designs are tried for a topic; it turns so that neighbours differ."""
    if topic.is_protein:
        return ["lab", "lab", "cohort", "diagnostic", "correlation", "review"]
    changing: Sequence[str] = ("review", "meta", "lab", "diagnostic", "casecontrol")
    turned = [*changing[turn % 5 :], *changing[: turn % 5]]
    return ["trial", "case", "cohort", *turned[:2], "trial", *turned[2:]]


def choose_plans(topics: Sequence[Topic], rng: Random) -> list[Plan]:
    """The citations' studies, no subject twice, verdicts dealt evenly."""
    plans: list[Plan] = []
    deck: list[Verdict] = []
    for turn, topic in enumerate(topics):
        taken: set[tuple[str, str, str]] = set()
        wanted = CITATIONS_PER_TOPIC.get(topic.branch, CITATIONS_PER_OTHER_TOPIC)
        for design in designs_of(topic, turn):
            if len(taken) == wanted:
                break
            if not deck:
                deck = [verdict for verdict, count in VERDICTS.items() for _ in range(count)]
                rng.shuffle(deck)
            free = [plan for plan in plans_of(topic, design, deck[-1]) if plan.subject not in taken]
            if free:
                plan = rng.choice(free)
                if plan.design not in ("case", "review"):
                    deck.pop()
                taken.add(plan.subject)
                plans.append(plan)
    rng.shuffle(plans)
    return plans


def choose_benchmark(topics: Sequence[Topic], used: set[tuple[str, str, str]], rng: Random) -> list[Plan]:
    """Studies that no citation tells, with the verdicts of `BENCHMARK`, old enough for its years."""
    verdicts = [verdict for verdict, count in BENCHMARK.items() for _ in range(count)]
    rng.shuffle(verdicts)
    taken = set(used)
    plans: list[Plan] = []
    by_topic = dict.fromkeys((topic.name for topic in topics), 0)
    while len(plans) < len(verdicts):
        verdict = verdicts[len(plans)]
        design = rng.choice(BENCHMARK_DESIGNS)
        free = [
            plan
            for topic in topics
            for plan in plans_of(topic, design, verdict)
            if plan.subject not in taken and plan.since <= BENCHMARK_YEARS[1] - 1
        ]
        fewest = min((by_topic[plan.topic.name] for plan in free), default=0)
        free = [plan for plan in free if by_topic[plan.topic.name] == fewest]
        if free:
            plan = rng.choice(free)
            taken.add(plan.subject)
            by_topic[plan.topic.name] += 1
            plans.append(plan)
    return plans


def compose() -> Composition:
    """All studies of the sample, the same each time."""
    topics = load_topics()
    plans = choose_plans(topics, Random(SEED))
    writer = Writer(Random(SEED + 1))
    studies = [writer.write(plan) for plan in plans]
    asked = choose_benchmark(topics, {plan.subject for plan in plans}, Random(SEED + 2))
    asker = Writer(Random(SEED + 3))
    layouts = Random(SEED + 4)
    benchmark = []
    for plan in asked:
        layout = layouts.choice(LAYOUTS[:-1] if plan.design == "meta" else LAYOUTS)
        year = layouts.randint(max(plan.since, BENCHMARK_YEARS[0]), BENCHMARK_YEARS[1])
        benchmark.append(asker.write(plan, form="question", layout=layout, year=year))
    return Composition(plans, studies, benchmark, load_table("written")["citation"])
