"""Invented study results whose counts, estimates, intervals and p values agree with one another."""

import math
from dataclasses import dataclass
from random import Random
from typing import Literal

Verdict = Literal["yes", "no", "maybe"]


class NoSuchResult(Exception):
    """No draw gave a result of the wanted kind: the rate or the effect asked for cannot show it."""


@dataclass(frozen=True)
class TwoRates:
    """x of n in the group of interest (1) and the other group (0), and their ratio."""

    n1: int
    x1: int
    n0: int
    x0: int
    ratio: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class TwoMeans:
    """Mean and SD in two groups of n, rounded as printed, and their difference."""

    n1: int
    n0: int
    mean1: float
    mean0: float
    sd1: float
    sd0: float
    low: float
    high: float
    p: float

    @property
    def difference(self) -> float:
        """Difference of the printed means, so that a reader who subtracts gets the printed number."""
        return self.mean1 - self.mean0


@dataclass(frozen=True)
class Estimate:
    """A coefficient, an area or a pooled ratio with its 95% interval."""

    value: float
    low: float
    high: float
    p: float = float("nan")


def two_sided_p(z: float) -> float:
    """P value of a standard normal deviate."""
    return math.erfc(abs(z) / math.sqrt(2))


def student_p(t: float, df: float) -> float:
    """Two-sided p value of Student's t, by the normal approximation of Abramowitz and Stegun 26.7.8."""
    return two_sided_p(t * (1 - 1 / (4 * df)) / math.sqrt(1 + t * t / (2 * df)))


def decimals(value: float) -> int:
    """Decimal places in which a measure of this size is printed."""
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 2 else 2


def _fits(verdict: Verdict, p: float, low: float, high: float) -> bool:
    """Whether an interval for a ratio shows an effect, rules a large one out, or leaves the matter open."""
    if verdict == "yes":
        return p < 0.03
    if verdict == "no":
        return p > 0.25 and low > 0.58 and high < 1.7
    return 0.06 < p < 0.25 and (low < 0.7 or high > 1.45)


def two_rates(
    rng: Random, rate: float, effect: float, verdict: Verdict, *, share: float = 0.5, odds: bool = False
) -> TwoRates:
    """Counts in two groups: `rate` in group 0, times `effect` in group 1 unless the verdict is no.

    `share` is the part of all subjects in group 1; `odds` gives odds ratios (case-control studies).
    """
    for attempt in range(4000):
        total = rng.randint(*((64, 300) if verdict == "maybe" else (110, 420))) * (1 + attempt // 250)
        n1 = max(20, round(total * share) + (rng.randint(-2, 2) if share == 0.5 else 0))
        n0 = max(20, total - n1)
        true = {"yes": effect, "no": rng.uniform(0.95, 1.05), "maybe": effect ** rng.uniform(0.5, 0.9)}[
            verdict
        ]
        if odds:
            other = rate / (1 - rate) * true
            rate1 = other / (1 + other)
        else:
            rate1 = min(0.93, rate * true)
        x0 = round(n0 * rate * rng.uniform(0.92, 1.08))
        x1 = round(n1 * rate1 * rng.uniform(0.95, 1.05))
        if min(x0, x1) < 3 or x0 >= n0 or x1 >= n1:
            continue
        if odds:
            ratio = (x1 / (n1 - x1)) / (x0 / (n0 - x0))
            se = math.sqrt(1 / x1 + 1 / (n1 - x1) + 1 / x0 + 1 / (n0 - x0))
        else:
            ratio = (x1 / n1) / (x0 / n0)
            se = math.sqrt(1 / x1 - 1 / n1 + 1 / x0 - 1 / n0)
        low, high = ratio * math.exp(-1.96 * se), ratio * math.exp(1.96 * se)
        p = two_sided_p(math.log(ratio) / se)
        same_way = verdict == "no" or (ratio - 1) * (effect - 1) > 0
        if same_way and _fits(verdict, p, low, high):
            return TwoRates(n1, x1, n0, x0, ratio, low, high, p)
    raise NoSuchResult(f"rate {rate}, effect {effect}, verdict {verdict}")


def two_means(
    rng: Random, mean: float, sd: float, *, lower: bool, verdict: Verdict, sizes: tuple[int, int], d: float
) -> TwoMeans:
    """Means of two groups `d` standard deviations apart (0 if the verdict is no), in the better direction."""
    places = decimals(mean)
    for _ in range(6000):
        n1 = rng.randint(*sizes)
        n0 = max(sizes[0], n1 + rng.randint(-2, 2))
        effect = {"yes": d, "no": rng.uniform(-0.1, 0.1), "maybe": d * rng.uniform(0.4, 0.8)}[verdict]
        mean0 = round(mean * rng.uniform(0.95, 1.05), places)
        mean1 = round(mean0 + (-effect if lower else effect) * sd, places)
        sd1, sd0 = (round(sd * rng.uniform(0.88, 1.12), places) for _ in range(2))
        if min(sd1, sd0) <= 0 or mean1 <= 0:
            continue
        se = math.sqrt(sd1**2 / n1 + sd0**2 / n0)
        difference = mean1 - mean0
        p = student_p(difference / se, n1 + n0 - 2)
        fits = {"yes": p < 0.03, "no": p > 0.25, "maybe": 0.06 < p < 0.2}[verdict]
        if fits and (verdict == "no" or (difference < 0) == lower):
            return TwoMeans(n1, n0, mean1, mean0, sd1, sd0, difference - 1.96 * se, difference + 1.96 * se, p)
    raise NoSuchResult(f"mean {mean}, SD {sd}, d {d}, verdict {verdict}")


def correlation(rng: Random, n: int, verdict: Verdict, sign: int) -> Estimate:
    """Correlation coefficient of n pairs with Fisher's interval."""
    size = {"yes": (0.38, 0.62), "no": (0.0, 0.09), "maybe": (0.16, 0.2)}[verdict]
    r = round(sign * rng.uniform(*size), 2)
    z, se = math.atanh(r), 1 / math.sqrt(n - 3)
    return Estimate(r, math.tanh(z - 1.96 * se), math.tanh(z + 1.96 * se), two_sided_p(z / se))


def accuracy(rng: Random, n1: int, n0: int, verdict: Verdict) -> tuple[int, int, Estimate]:
    """True positives of n1, true negatives of n0, and the area under the curve (Hanley and McNeil 1982)."""
    goal = {"yes": (0.84, 0.94), "no": (0.48, 0.56), "maybe": (0.64, 0.7)}[verdict]
    true_positive, true_negative = round(n1 * rng.uniform(*goal)), round(n0 * rng.uniform(*goal))
    middle = (true_positive / n1 + true_negative / n0) / 2
    area = min(0.98, middle + rng.uniform(0.02, 0.05))
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    se = math.sqrt((area * (1 - area) + (n1 - 1) * (q1 - area**2) + (n0 - 1) * (q2 - area**2)) / (n1 * n0))
    return true_positive, true_negative, Estimate(area, area - 1.96 * se, min(0.99, area + 1.96 * se))


def pooled_ratio(rng: Random, verdict: Verdict, *, lower: bool) -> Estimate:
    """Pooled relative risk of several trials."""
    log = {"yes": rng.uniform(0.22, 0.4), "no": rng.uniform(-0.03, 0.03), "maybe": rng.uniform(0.15, 0.25)}[
        verdict
    ]
    se = {
        "yes": log / rng.uniform(2.8, 4.2),
        "no": rng.uniform(0.04, 0.08),
        "maybe": log / rng.uniform(1.1, 1.6),
    }[verdict]
    log = -log if lower else log
    return Estimate(
        math.exp(log), math.exp(log - 1.96 * se), math.exp(log + 1.96 * se), two_sided_p(log / se)
    )


def pooled_difference(rng: Random, verdict: Verdict, *, lower: bool) -> Estimate:
    """Pooled standardised mean difference of several trials."""
    d = {"yes": rng.uniform(0.28, 0.55), "no": rng.uniform(-0.04, 0.04), "maybe": rng.uniform(0.2, 0.3)}[
        verdict
    ]
    se = {
        "yes": d / rng.uniform(2.8, 4.2),
        "no": rng.uniform(0.05, 0.08),
        "maybe": d / rng.uniform(1.1, 1.6),
    }[verdict]
    d = -d if lower else d
    return Estimate(d, d - 1.96 * se, d + 1.96 * se, two_sided_p(d / se))
