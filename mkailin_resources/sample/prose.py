"""Composes invented studies: a topic, a design and a verdict in; title, abstract and headings out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from mkailin_resources.sample import results
from mkailin_resources.sample.material import Event, Factor, Lab, Marker, Scale, Topic, Treatment, load_table
from mkailin_resources.sample.results import Verdict

FRAMES: dict[str, Any] = load_table("frames")
WORDS = (120, 245)
MOST_HEADINGS = 9
METHOD_HEADINGS = {
    "trial": ["Treatment Outcome"],
    "meta": ["Treatment Outcome", "Randomized Controlled Trials as Topic"],
    "cohort": ["Risk Factors", "Follow-Up Studies", "Prospective Studies", "Prognosis"],
    "casecontrol": ["Case-Control Studies", "Risk Factors", "Odds Ratio"],
    "diagnostic": ["Sensitivity and Specificity", "ROC Curve"],
    "correlation": ["Cross-Sectional Studies", "Biomarkers/blood"],
    "lab": [],
}
NUMBER_WORDS = ("Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve", "Thirteen", "Fourteen")


@dataclass(frozen=True)
class Section:
    """Part of an abstract; no label in a plain one."""

    label: str | None
    category: str | None
    text: str


@dataclass
class Study:
    """A study as told: `question` is its title asked, `verdict` what its results answer (None: no answer)."""

    title: str
    sections: list[Section]
    headings: list[str]
    tags: list[str]
    types: list[str]
    year: int
    verdict: Verdict | None = None
    question: str | None = None


@dataclass(frozen=True)
class Plan:
    """What to write: the design and the parts of the topic it is about."""

    topic: Topic
    design: str
    verdict: Verdict = "yes"
    treatment: Treatment | None = None
    outcome: Event | Scale | None = None
    factor: Factor | None = None
    marker: Marker | None = None
    lab: Lab | None = None

    @property
    def since(self) -> int:
        """The first year in which it could have been published."""
        first = {"meta": 2004, "review": 2012}.get(self.design, 1985)  # I2 dates from 2003
        parts = (self.topic, self.treatment, self.factor, self.marker, self.lab)
        return max(first, *(part.since for part in parts if part))

    @property
    def studied_mesh(self) -> list[str]:
        """Headings of the treatment, factor, marker or experiment."""
        found = [part.mesh for part in (self.treatment, self.factor, self.marker) if part]
        return [heading for mesh in found for heading in mesh] + (self.lab.mesh if self.lab else [])

    @property
    def subject(self) -> tuple[str, str, str]:
        """Names what is studied: two plans with the same subject would be the same study."""
        named = [part.name for part in (self.treatment, self.factor, self.marker) if part]
        part = named[0] if named else self.lab.agent if self.lab else self.design
        return self.topic.name, part, self.outcome.short if self.outcome else ""


@dataclass
class Deck:
    """Deals the frames of each role evenly: none comes back before all have been dealt."""

    rng: Random
    left: dict[str, list[str]] = field(default_factory=dict)

    def deal(self, design: str, role: str) -> str:
        """The next frame of a role."""
        key = f"{design}.{role}"
        if not self.left.get(key):
            frames = list(FRAMES[design][role])
            self.rng.shuffle(frames)
            self.left[key] = frames
        return self.left[key].pop()


def sentence_case(text: str) -> str:
    """First letters of sentences as capitals; p53 and mTOR stay as they are."""

    def raise_first(match: re.Match[str]) -> str:
        lead, word = match.group(1), match.group(2)
        return lead + (word[0].upper() + word[1:] if re.fullmatch(r"[a-zà-ÿ]+", word) else word)

    return re.sub(r"(^|[.?!] )([^\W_]+)", raise_first, text)


def third(verb: str) -> str:
    """reduce -> reduces."""
    return f"{verb}s"


def past(verb: str) -> str:
    """reduce -> reduced."""
    return verb + ("d" if verb.endswith("e") else "ed")


class Numbers:
    """The way one abstract prints its figures."""

    def __init__(self, rng: Random) -> None:
        self.p_sign = rng.choice("pP")
        self.interval = rng.choice(("95% CI {} to {}", "95% confidence interval {} to {}", "95% CI {}-{}"))
        self.fine = rng.random() < 0.4

    def p(self, value: float) -> str:
        """p = 0.03, P < 0.001."""
        if value < 0.001:
            return f"{self.p_sign} < 0.001"
        return f"{self.p_sign} = {value:.3f}" if value < 0.01 else f"{self.p_sign} = {value:.2f}"

    def ci(self, low: float, high: float, places: int = 2) -> str:
        """95% CI 0.45 to 0.91; never a hyphen between numbers that may be negative."""
        form = "95% CI {} to {}" if low < 0 else self.interval
        return form.format(minus(low, places), minus(high, places))

    def share(self, part: int, whole: int) -> str:
        """Percentage, with a decimal only in large groups."""
        places = 1 if self.fine and whole >= 100 else 0
        return f"{100 * part / whole:.{places}f}%"


def minus(value: float, places: int) -> str:
    """A number to so many places, without a negative zero."""
    text = f"{value:.{places}f}"
    return text[1:] if text.startswith("-") and float(text) == 0 else text


def with_unit(value: float, unit: str, places: int) -> str:
    """18.5% of the left ventricle; 12.1 points."""
    number = minus(value, places)
    if not unit:
        return number
    if unit.startswith("percent"):
        return f"{number}%{unit.removeprefix('percent')}"
    return f"{number} {unit}"


def shape(outcome: Event | Scale) -> tuple[str, str]:
    """The verb and its object: reduce, the risk of falls."""
    if isinstance(outcome, Event):
        return (
            ("increase", f"the chance of {outcome.short}")
            if outcome.good
            else (
                "reduce",
                f"the risk of {outcome.short}",
            )
        )
    return outcome.verb or ("reduce" if outcome.better == "lower" else "improve"), outcome.short


def age_tags(mean: float) -> list[str]:
    """Check tags for a sample of this mean age."""
    bands = [
        (2.5, 5.9, "Child, Preschool"),
        (4.5, 12.9, "Child"),
        (9.5, 18.9, "Adolescent"),
        (20, 58, "Adult"),
        (40, 72, "Middle Aged"),
        (58, 95, "Aged"),
        (74, 95, "Aged, 80 and over"),
    ]
    return [tag for low, high, tag in bands if low <= mean <= high]


def sex_tags(sex: str) -> list[str]:
    """Check tags for the sexes studied."""
    return {"both": ["Female", "Male"], "female": ["Female"], "male": ["Male"]}[sex]


class Writer:
    """Writes studies one after another; the deck makes neighbours differ in wording."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.deck = Deck(rng)

    def write(
        self, plan: Plan, *, form: str | None = None, layout: str | None = None, year: int | None = None
    ) -> Study:
        """A study to the plan, retold until its length is that of an abstract.

        `form` fixes the title (statement, question, noun), `layout` that of the abstract (plain or a
        name in `frames.toml`). Raises `ValueError` when no telling has the right length.
        """
        year = year or self.rng.randint(plan.since, 2026)
        form = form or self.rng.choice(("statement", "statement", "question", "noun", "noun"))
        for attempt in range(40):
            self.wordy = attempt // 10
            study = self._tell(plan, year, form, layout or self._layout(plan, year))
            words = sum(len(section.text.split()) for section in study.sections)
            if WORDS[0] <= words <= WORDS[1]:
                return study
        raise ValueError(
            f"{plan.subject}: no telling of {WORDS[0]} to {WORDS[1]} words, the last had {words}"
        )

    def _layout(self, plan: Plan, year: int) -> str:
        """Plain before 1990 and in laboratory work mostly, structured afterwards mostly."""
        if plan.design in ("review", "case") or year < 1990:
            return "plain"
        choices = ["plain", "plain", "classic", "aims", "introduction", "purpose"]
        if plan.design != "lab":
            choices += ["classic", "context"]
        if plan.design not in ("lab", "meta"):
            choices += ["long"]
        if plan.design not in ("lab", "meta") and year >= 2013:
            choices += ["importance"]
        return self.rng.choice(choices)

    def _tell(self, plan: Plan, year: int, form: str, layout: str) -> Study:
        if plan.design == "review":
            return self._review(plan.topic, year)
        if plan.design == "case":
            return self._case(plan.topic)
        teller = {
            "trial": self._trial,
            "cohort": self._cohort,
            "casecontrol": self._casecontrol,
            "diagnostic": self._diagnostic,
            "correlation": self._correlation,
            "lab": self._lab,
            "meta": self._meta,
        }[plan.design]
        self.numbers = Numbers(self.rng)
        slots, told = teller(plan, year)
        slots = {**self._common(plan.topic, year), **slots}
        frames = {role: self.deck.deal(plan.design, role) for role in ("background", "objective", "to")}
        frames |= told
        for role in ("design", "setting", "participants", "measures"):
            if layout == "long" and role not in frames:
                frames[role] = self.deck.deal(plan.design, role)
        tail = self.deck.deal(plan.design, f"tail_{plan.verdict}")
        frames["conclusions"] = f"{self.deck.deal(plan.design, f'conclusions_{plan.verdict}')} {tail}"
        roles = {role: self._fill(frame, slots) for role, frame in frames.items()}
        question = self._fill(self.deck.deal(plan.design, "titles_question"), slots)
        title = question
        if form != "question":
            by_verdict = f"titles_{plan.verdict}"
            role = by_verdict if form == "statement" and plan.verdict != "maybe" else "titles_noun"
            title = self._fill(self.deck.deal(plan.design, role), slots)
        headings, tags, types = self._index(plan, year, slots)
        return Study(
            title=title,
            sections=lay_out(roles, layout),
            headings=headings,
            tags=tags,
            types=types,
            year=year,
            verdict=plan.verdict,
            question=question.split("?")[0] + "?",
        )

    def _fill(self, frame: str, slots: Mapping[str, str]) -> str:
        text = frame.format(**slots)  # a frame may hold a fact that is itself a sentence
        return re.sub(r" +", " ", sentence_case(text.strip())).replace("..", ".")

    def _common(self, topic: Topic, year: int) -> dict[str, str]:
        mean = self.rng.uniform(topic.age[0], topic.age[-1])
        age = f"{mean:.1f}" if mean < 19 else f"{mean:.0f}"
        share = self.rng.randint(*topic.women)
        young = mean < 19
        people = f"mean age {age} years"
        if topic.sex == "both":
            people += f", {share}% {'girls' if young else 'women'}"
        self.mean_age = mean
        fact, fact2 = self.rng.sample(topic.facts, 2)
        return {
            "name": topic.name,
            "disease": topic.disease,
            "patients": topic.patients,
            "who": topic.who,
            "folk": topic.who if topic.who != "patients" else "people",
            "people": people,
            "place": self.rng.choice(FRAMES["places"][topic.place]),
            "fact": fact,
            "fact2": fact2,
            "y1": str(year - self.rng.randint(4, 6)),
            "y2": str(year - self.rng.randint(1, 2)),
        }

    def _told(self, plan: Plan, methods: str, results_: Sequence[str], extras: int) -> dict[str, str]:
        """Methods and results, with so many of the remarks that fit any result of this verdict."""
        pool = f"extra_{plan.verdict}" if f"extra_{plan.verdict}" in FRAMES[plan.design] else "extra"
        unfit = ["both sexes"] if plan.topic.sex != "both" else []
        unfit += ["No serious adverse event"] if plan.treatment and plan.treatment.harm else []
        fitting = [
            remark for remark in FRAMES[plan.design][pool] if not any(words in remark for words in unfit)
        ]
        remarks: list[str] = []
        while len(remarks) < min(extras + self.wordy, len(fitting)):
            remark = self.deck.deal(plan.design, pool)
            if remark in fitting and remark not in remarks:
                remarks.append(remark)
        return {
            "methods": f"{methods} {self.deck.deal(plan.design, 'primary')}",
            "results": " ".join([*results_, *remarks]),
        }

    def _treatment_slots(self, treatment: Treatment, outcome: Event | Scale) -> dict[str, str]:
        verb, target = shape(outcome)
        blind = any(word in f"{treatment.vs} {treatment.vs_arm}" for word in ("placebo", "sham", "saline"))
        how_blind = (
            "double-blind" if blind else self.rng.choice(("randomised", "open-label", "assessor-blinded"))
        )
        plural = treatment.plural
        return {
            "t": treatment.name,
            "how": treatment.how,
            "arm": treatment.arm,
            "vs": treatment.vs,
            "vs_arm": treatment.vs_arm,
            "why": treatment.why,
            "v": verb,
            "v3": verb if plural else third(verb),
            "vpast": past(verb),
            "does": "do" if plural else "does",
            "obj": target,
            "short": outcome.short,
            "span": outcome.span,
            "blind": how_blind,
            "a_blind": f"{'an' if how_blind[0] in 'ao' else 'a'} {how_blind}",
            "noun": f"{outcome.short} within {outcome.span}"
            if isinstance(outcome, Event)
            else f"the {outcome.label} at {outcome.span}",
        }

    def _trial(self, plan: Plan, year: int) -> tuple[dict[str, str], dict[str, str]]:
        treatment, outcome = plan.treatment, plan.outcome
        assert treatment
        assert outcome
        slots = self._treatment_slots(treatment, outcome)
        _number, rng, verdict = self.numbers, self.rng, plan.verdict
        if isinstance(outcome, Event):
            effect = rng.uniform(1.35, 1.8) if outcome.good else rng.uniform(0.45, 0.68)
            rates = results.two_rates(rng, outcome.rate, effect, verdict)
            n1, n0 = rates.n1, rates.n0
            slots |= self._rate_slots(rates, outcome)
            frame = self.deck.deal("trial", f"event_{verdict}")
        else:
            means = results.two_means(
                rng,
                outcome.mean,
                outcome.sd,
                lower=outcome.better == "lower",
                verdict=verdict,
                sizes=(34, 60) if verdict == "maybe" else (52, 150),
                d=rng.uniform(0.4, 0.65),
            )
            n1, n0 = means.n1, means.n0
            slots |= self._mean_slots(means, outcome)
            frame = self.deck.deal("trial", f"scale_{verdict}")
        slots |= {
            "n": str(n1 + n0),
            "n1": str(n1),
            "n0": str(n0),
            "screened": str(round((n1 + n0) * rng.uniform(1.3, 2.6))),
            "k": str(rng.randint(3, 11)),
            "withdrawn": rng.choice(NUMBER_WORDS).lower(),
        }
        told = [frame]
        if treatment.harm and rng.random() < 0.8:
            low = rng.randint(1, 6)
            slots |= {"harm": treatment.harm, "h0": f"{low}%", "h1": f"{low + rng.randint(3, 9)}%"}
            told.append(self.deck.deal("trial", "harm"))
        return slots, self._told(plan, self.deck.deal("trial", "methods"), told, rng.randint(1, 2))

    def _rate_slots(self, rates: results.TwoRates, outcome: Event) -> dict[str, str]:
        number = self.numbers
        return {
            "x1": str(rates.x1),
            "x0": str(rates.x0),
            "p1": number.share(rates.x1, rates.n1),
            "p0": number.share(rates.x0, rates.n0),
            "rr": f"{rates.ratio:.2f}",
            "ci": number.ci(rates.low, rates.high),
            "p": number.p(rates.p),
            "did": outcome.did,
            "more": "More" if outcome.good else "Fewer",
        }

    def _mean_slots(self, means: results.TwoMeans, outcome: Scale) -> dict[str, str]:
        number, places = self.numbers, results.decimals(outcome.mean)
        baseline = outcome.mean * self.rng.uniform(0.98, 1.02) + (
            0.35 if outcome.better == "lower" else -0.35
        ) * (outcome.sd)
        return {
            "label": outcome.label,
            "m1": with_unit(means.mean1, outcome.unit, places),
            "m0": with_unit(means.mean0, outcome.unit, places),
            "mb": with_unit(baseline, outcome.unit, places),
            "s1": minus(means.sd1, places),
            "s0": minus(means.sd0, places),
            "d": with_unit(means.difference, outcome.unit, places).split(" of ")[0],
            "ci": number.ci(means.low, means.high, places),
            "p": number.p(means.p),
        }

    def _cohort(self, plan: Plan, year: int) -> tuple[dict[str, str], dict[str, str]]:
        factor, outcome = plan.factor, plan.outcome
        assert factor
        assert isinstance(outcome, Event)
        share = 1 / 3 if "third" in factor.have else self.rng.uniform(0.2, 0.42)
        rates = results.two_rates(
            self.rng, outcome.rate * 0.8, self.rng.uniform(1.45, 2.1), plan.verdict, share=share
        )
        n = rates.n1 + rates.n0
        slots = self._factor_slots(factor) | self._rate_slots(rates, outcome)
        slots |= {
            "n": str(n),
            "n1": str(rates.n1),
            "n0": str(rates.n0),
            "x": str(rates.x1 + rates.x0),
            "px": self.numbers.share(rates.x1 + rates.x0, n),
            "share": self.numbers.share(rates.n1, n),
            "short": outcome.short,
            "span": outcome.span,
            "ratio": "adjusted relative risk",
        }
        told = [self.deck.deal("cohort", plan.verdict)]
        return slots, self._told(plan, self.deck.deal("cohort", "methods"), told, 1)

    def _factor_slots(self, factor: Factor) -> dict[str, str]:
        plural = factor.plural
        return {
            "f": factor.name,
            "have": factor.have,
            "measured": factor.measured,
            "is": "are" if plural else "is",
            "does": "do" if plural else "does",
            "predicts": "predict" if plural else "predicts",
            "increases": "increase" if plural else "increases",
        }

    def _casecontrol(self, plan: Plan, year: int) -> tuple[dict[str, str], dict[str, str]]:
        factor = plan.factor
        assert factor
        rates = results.two_rates(
            self.rng,
            factor.rate * self.rng.uniform(0.9, 1.1),
            self.rng.uniform(1.7, 2.6),
            plan.verdict,
            share=self.rng.choice((0.34, 0.4, 0.5)),
            odds=True,
        )
        as_event = Event("", "", "", 0, [])
        slots = self._factor_slots(factor) | self._rate_slots(rates, as_event)
        slots |= {"n1": str(rates.n1), "n0": str(rates.n0)}
        told = [self.deck.deal("casecontrol", plan.verdict)]
        return slots, self._told(plan, self.deck.deal("casecontrol", "methods"), told, self.rng.randint(1, 2))

    def _diagnostic(self, plan: Plan, year: int) -> tuple[dict[str, str], dict[str, str]]:
        marker = plan.marker
        assert marker
        n1, n0 = self.rng.randint(46, 180), self.rng.randint(42, 160)
        positive, negative, area = results.accuracy(self.rng, n1, n0, plan.verdict)
        plural = marker.plural
        slots = {
            "m": marker.name,
            "how": marker.how,
            "mimic": marker.mimic,
            "target": marker.target or plan.topic.disease,
            "distinguishes": "distinguish" if plural else "distinguishes",
            "separates": "separate" if plural else "separates",
            "is_m": "are" if plural else "is",
            "test": "marker" if marker.how.startswith("measured") else "test",
            "does": "do" if plural else "does",
            "n": str(n1 + n0),
            "n1": str(n1),
            "n0": str(n0),
            "tp": str(positive),
            "tn": str(negative),
            "sens": self.numbers.share(positive, n1),
            "spec": self.numbers.share(negative, n0),
            "auc": f"{area.value:.2f}",
            "ci": self.numbers.ci(area.low, area.high),
        }
        if marker.target_who and marker.target_people:
            slots |= {"folk": marker.target_who, "people": marker.target_people}
        told = [self.deck.deal("diagnostic", plan.verdict)]
        return slots, self._told(plan, self.deck.deal("diagnostic", "methods"), told, self.rng.randint(1, 2))

    def _correlation(self, plan: Plan, year: int) -> tuple[dict[str, str], dict[str, str]]:
        scale, topic = plan.outcome, plan.topic
        assert isinstance(scale, Scale)
        worse_is_higher = scale.better == "lower"
        sign = 1 if worse_is_higher != topic.protective else -1
        n = self.rng.randint(70, 190) if plan.verdict != "maybe" else self.rng.randint(70, 88)
        r = results.correlation(self.rng, n, plan.verdict, sign)
        slots = {
            "short": scale.short,
            "label": scale.label,
            "dir": "higher" if sign > 0 else "lower",
            "n": str(n),
            "r": minus(r.value, 2),
            "ci": self.numbers.ci(r.low, r.high),
            "p": self.numbers.p(r.p),
        }
        told = [self.deck.deal("correlation", plan.verdict)]
        extras = 1 if plan.verdict == "maybe" else 2
        return slots, self._told(plan, self.deck.deal("correlation", "methods"), told, extras)

    def _lab(self, plan: Plan, year: int) -> tuple[dict[str, str], dict[str, str]]:
        lab, rng = plan.lab, self.rng
        assert lab
        verb = lab.verb or ("reduce" if lab.better == "lower" else "improve")
        means = results.two_means(
            rng,
            lab.mean,
            lab.sd,
            lower=lab.better == "lower",
            verdict=plan.verdict,
            sizes=(6, 9) if lab.kind == "cells" else (9, 14),
            d=rng.uniform(1.5, 2.1),
        )
        places = results.decimals(lab.mean)
        n0 = means.n1 if lab.kind == "cells" else means.n0
        slots = {
            "agent": lab.agent,
            "model": lab.model,
            "given": lab.given,
            "control": lab.control,
            "control_arm": lab.control_arm,
            "short": lab.short,
            "label": lab.label,
            "v": verb,
            "v3": verb if lab.plural else third(verb),
            "does": "do" if lab.plural else "does",
            "acts": "act" if lab.plural else "acts",
            "link": str(rng.randint(52, 78)),
            "check": "Control cultures were stable throughout."
            if lab.kind == "cells"
            else "Body weight did not differ between the groups.",
            "path": lab.path,
            "updown": "rise" if lab.path_up else "fall",
            "pct": str(rng.randint(24, 62)),
            "p2": self.numbers.p(
                rng.uniform(0.0004, 0.02) if plan.verdict == "yes" else rng.uniform(0.3, 0.9)
            ),
            "sex": rng.choice(("male", "female")) if plan.topic.sex == "both" else plan.topic.sex,
            "weeks": str(rng.randint(8, 16)),
            "grams": f"{rng.randint(22, 26)}0 to {rng.randint(28, 33)}0",
            "n1": str(means.n1),
            "n0": str(n0),
            "m1": with_unit(means.mean1, lab.unit, places),
            "m0": with_unit(means.mean0, lab.unit, places),
            "s1": minus(means.sd1, places),
            "s0": minus(means.sd0, places),
            "p": self.numbers.p(means.p),
        }
        told = [self.deck.deal("lab", plan.verdict), self.deck.deal("lab", f"path_{plan.verdict}")]
        roles = self._told(plan, self.deck.deal("lab", f"methods_{lab.kind}"), told, 2)
        if plan.topic.is_protein:
            roles["background"] = self.deck.deal("lab", "background_protein")
        return slots, roles

    def _meta(self, plan: Plan, year: int) -> tuple[dict[str, str], dict[str, str]]:
        treatment, outcome, rng = plan.treatment, plan.outcome, self.rng
        assert treatment
        assert outcome
        slots = self._treatment_slots(treatment, outcome)
        trials = rng.randint(5, 11)
        if isinstance(outcome, Event):
            pooled = results.pooled_ratio(rng, plan.verdict, lower=not outcome.good)
        else:
            pooled = results.pooled_difference(rng, plan.verdict, lower=outcome.better == "lower")
        slots |= {
            "ratio": "relative risk" if isinstance(outcome, Event) else "standardised mean difference",
            "rr": minus(pooled.value, 2),
            "ci": self.numbers.ci(pooled.low, pooled.high),
            "i2": str(rng.randint(48, 79) if plan.verdict == "maybe" else rng.randint(0, 36)),
            "n": str(trials * rng.randint(70, 190) + rng.randint(1, 60)),
            "trials": str(trials),
            "trials_word": NUMBER_WORDS[trials - 5],
            "few": rng.choice(("two", "three")),
            "screened": str(rng.randint(480, 3900)),
        }
        told = [self.deck.deal("meta", plan.verdict)]
        return slots, self._told(plan, self.deck.deal("meta", "methods"), told, 2)

    def _review(self, topic: Topic, year: int) -> Study:
        protein = "_protein" if topic.is_protein else ""
        points = list(topic.points)
        facts = list(topic.facts)
        self.rng.shuffle(points)
        self.rng.shuffle(facts)
        first = [facts[0], self.deck.deal("review", "opening")]
        self.rng.shuffle(first)
        last = [self.deck.deal("review", f"closing{protein}") for _ in range(2)]
        frames = [*first, facts[1], self.deck.deal("review", "link"), *points, last[0]]
        if sum(len(frame.split()) for frame in frames) < WORDS[0] + 5:
            frames = [*first, *facts[1:], *frames[3:], last[1]]
        slots = {"name": topic.name}
        text = " ".join(self._fill(frame, slots) for frame in frames)
        qualifier = "physiology" if topic.is_protein else self.rng.choice(("therapy", "diagnosis"))
        return Study(
            title=self._fill(self.deck.deal("review", f"titles{protein}"), slots),
            sections=[Section(None, None, text)],
            headings=once([f"{topic.lead}/{qualifier}", *topic.disease_mesh, *self._context(topic)])[:6],
            tags=["Humans"],
            types=["Review"],
            year=year,
        )

    def _context(self, topic: Topic) -> list[str]:
        """Headings of what the topic is studied with, for articles about the topic at large."""
        parts: list[Treatment | Lab | Event] = [*topic.treatment, *topic.lab, *topic.event]
        found = [heading for part in parts for heading in part.mesh]
        self.rng.shuffle(found)
        return found

    def _case(self, topic: Topic) -> Study:
        case = topic.case[0]
        return Study(
            title=case.title,
            sections=[Section(None, None, " ".join(case.text))],
            headings=once([f"{topic.lead}/complications", *case.mesh]),
            tags=["Humans", *case.tags],
            types=["Case Reports"],
            year=self.rng.randint(case.since, 2026),
        )

    def _index(
        self, plan: Plan, year: int, slots: Mapping[str, str]
    ) -> tuple[list[str], list[str], list[str]]:
        """Headings (the lead first), check tags and publication types, as an indexer would give them."""
        topic, design = plan.topic, plan.design
        part_mesh = plan.studied_mesh
        drug = any(heading.endswith(("therapeutic use", "dosage")) for heading in part_mesh)
        blood = "blood" if topic.in_blood else "analysis"
        lead = {
            "trial": "drug therapy" if drug else "therapy",
            "meta": "drug therapy" if drug else "therapy",
            "cohort": blood if topic.is_protein else "complications",
            "casecontrol": "epidemiology",
            "diagnostic": "analysis" if topic.is_protein else "diagnosis",
            "correlation": "blood",
            "lab": "metabolism" if topic.is_protein else "pathology",
        }[design]
        headings = [f"{topic.lead}/{lead}", *part_mesh]
        if topic.is_protein and not (plan.marker and plan.marker.target):
            qualifier = {"cohort": "diagnosis", "diagnostic": "diagnosis", "correlation": "blood"}.get(design)
            headings += [f"{name}/{qualifier}" for name in topic.disease_mesh if qualifier]
        headings += plan.outcome.mesh if plan.outcome else []
        headings += METHOD_HEADINGS[design]
        if slots.get("blind") == "double-blind" and design == "trial":
            headings.append("Double-Blind Method")
        if plan.lab and plan.lab.kind != "cells":
            headings.append("Disease Models, Animal")
        return once(headings)[:MOST_HEADINGS], self._tags(plan, year, slots), self._types(plan, year, slots)

    def _tags(self, plan: Plan, year: int, slots: Mapping[str, str]) -> list[str]:
        """Check tags: species, sexes, ages."""
        if plan.lab:
            animal = {"mice": "Mice", "rats": "Rats"}.get(plan.lab.kind)
            return ["Animals", slots["sex"].capitalize(), animal] if animal else ["Humans"]
        if plan.design == "meta":
            return ["Humans"]
        if plan.marker and plan.marker.target_who:
            return ["Humans", *plan.marker.target_tags]
        tags = ["Humans", *sex_tags(plan.topic.sex), *age_tags(self.mean_age)]
        if year >= 2009 and 20 <= self.mean_age <= 36:
            tags.append("Young Adult")  # a check tag since 2009
        return tags

    def _types(self, plan: Plan, year: int, slots: Mapping[str, str]) -> list[str]:
        """Publication types beside Journal Article."""
        if plan.design == "meta":
            return ["Meta-Analysis", "Systematic Review"]
        if plan.design == "trial":
            several = re.search(r"hospitals|departments|practices|units|centres|clinics", slots["place"])
            return ["Randomized Controlled Trial", *(["Multicenter Study"] if several else [])]
        observed = plan.design in ("cohort", "casecontrol") and year >= 2014
        return ["Observational Study"] if observed else []


def once(headings: Sequence[str]) -> list[str]:
    """Each descriptor once, with its first qualifier."""
    return list({heading.split("/")[0]: heading for heading in reversed(headings)}.values())[::-1]


def lay_out(roles: Mapping[str, str], layout: str) -> list[Section]:
    """The roles of an abstract as sections; one without label for a plain abstract."""
    if layout == "plain":
        text = " ".join(
            roles[role] for role in ("background", "objective", "methods", "results", "conclusions")
        )
        return [Section(None, None, text)]
    sections = []
    for label, category, held in FRAMES["layouts"][layout]:
        sections.append(Section(label, category, " ".join(roles[role] for role in held.split())))
    return sections
