"""How sure a score is: Wilson intervals for shares, bootstrap intervals for everything else.

A bootstrap that draws items with replacement draws, seen from its confusion counts, from a multinomial
distribution over their cells. So whole resamples are drawn as counts, and no list of items is copied.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mkailin_assets.corpus.tables import DECISIONS

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 5000
SEED = 20


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95% interval."""

    value: float
    low: float
    high: float


def columns_of(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    """An estimate as a row of a table has it: its value under a name, and the ends of its interval."""
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def accuracy(gold: Sequence[str], predicted: Sequence[str]) -> Estimate:
    """Share of equal decisions, with Wilson's score interval (Wilson 1927)."""
    from scipy.stats import binomtest

    right = sum(one == other for one, other in zip(gold, predicted, strict=True))
    interval = binomtest(right, len(gold)).proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return Estimate(right / len(gold), float(interval.low), float(interval.high))


def macro_f1(gold: Sequence[str], predicted: Sequence[str]) -> Estimate:
    """Mean F1 of yes, no and maybe, 0 for one that neither side uses; seeded bootstrap interval."""
    return _bootstrap([gold, predicted], macro_f1_of_counts)


def paired_differences(
    gold: Sequence[str], ours: Sequence[str], theirs: Sequence[str]
) -> dict[str, Estimate]:
    """Lead of our accuracy and macro-F1 over theirs on the same items; seeded bootstrap intervals."""

    def difference(statistic: Callable[["np.ndarray"], "np.ndarray"]) -> Estimate:
        return _bootstrap(
            [gold, ours, theirs],
            lambda counts: statistic(counts.sum(axis=-1)) - statistic(counts.sum(axis=-2)),
        )

    return {"accuracy": difference(accuracy_of_counts), "macro_f1": difference(macro_f1_of_counts)}


def mean(values: Sequence[float]) -> Estimate:
    """Mean of what each item has; seeded bootstrap interval."""
    import numpy as np

    items = len(values)
    drawn = np.random.default_rng(SEED).integers(items, size=(RESAMPLES, items))
    return _percentiles(np.mean(values), np.asarray(values)[drawn].mean(axis=1))


def accuracy_of_counts(counts: "np.ndarray") -> "np.ndarray":
    """Accuracy of confusion counts [..., gold, predicted]."""
    return counts.trace(axis1=-2, axis2=-1) / counts.sum(axis=(-2, -1))


def macro_f1_of_counts(counts: "np.ndarray") -> "np.ndarray":
    """Macro-F1 of confusion counts [..., gold, predicted]: the mean of 2 TP / (gold + predicted)."""
    import numpy as np

    right = np.diagonal(counts, axis1=-2, axis2=-1)
    used = counts.sum(axis=-1) + counts.sum(axis=-2)
    return (2 * right / np.maximum(used, 1)).mean(axis=-1)


def _bootstrap(
    decisions: Sequence[Sequence[str]], statistic: Callable[["np.ndarray"], "np.ndarray"]
) -> Estimate:
    """Percentile interval of a statistic of the joint counts of several decisions on the same items."""
    import numpy as np

    shape = (len(DECISIONS),) * len(decisions)
    codes = [[DECISIONS.index(decision) for decision in column] for column in decisions]
    counts = np.bincount(np.ravel_multi_index(codes, shape), minlength=int(np.prod(shape)))
    items = int(counts.sum())
    drawn = np.random.default_rng(SEED).multinomial(items, counts / items, size=RESAMPLES)
    return _percentiles(statistic(counts.reshape(shape)), statistic(drawn.reshape(-1, *shape)))


def _percentiles(value: "np.floating | np.ndarray", resampled: "np.ndarray") -> Estimate:
    import numpy as np

    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Estimate(float(value), float(low), float(high))
