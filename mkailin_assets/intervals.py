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
_DRAWN_AT_ONCE = 1 << 20


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


def share(right: int, of: int) -> Estimate:
    """So many of so many, with Wilson's score interval (Wilson 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(right, of).proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return Estimate(right / of, float(interval.low), float(interval.high))


def accuracy(gold: Sequence[str], predicted: Sequence[str]) -> Estimate:
    """Share of equal decisions, with Wilson's interval."""
    return share(sum(one == other for one, other in zip(gold, predicted, strict=True)), len(gold))


def macro_f1(
    gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str] = DECISIONS
) -> Estimate:
    """Mean F1 of the labels that either side uses, as scikit-learn has it; seeded bootstrap interval.

    What is none of the labels, or no answer, misses the right one and is no label's false find.
    """
    return _bootstrap(gold, [predicted], labels, macro_f1_of_counts)


def share_difference(only_ours: int, only_theirs: int, of: int) -> Estimate:
    """Lead of our share over theirs, of items that one of us alone has right; seeded bootstrap interval."""
    import numpy as np

    lead = np.array([1, -1, 0])
    counts = np.array([only_ours, only_theirs, of - only_ours - only_theirs])
    drawn = np.random.default_rng(SEED).multinomial(of, counts / of, size=RESAMPLES)
    return _percentiles(counts @ lead / of, drawn @ lead / of)


def macro_f1_difference(
    gold: Sequence[str],
    ours: Sequence[str | None],
    theirs: Sequence[str | None],
    labels: Sequence[str] = DECISIONS,
) -> Estimate:
    """Lead of our macro-F1 over theirs on the same items; seeded bootstrap interval."""
    return _bootstrap(
        gold,
        [ours, theirs],
        labels,
        lambda drawn, whole: (
            macro_f1_of_counts(drawn.sum(axis=-1), whole.sum(axis=-1))
            - macro_f1_of_counts(drawn.sum(axis=-2), whole.sum(axis=-2))
        ),
    )


def mcnemar(only_ours: int, only_theirs: int) -> float:
    """p of McNemar's exact test (McNemar 1947) of items that one of us alone has right; 1 where none is."""
    from scipy.stats import binomtest

    discordant = only_ours + only_theirs
    return float(binomtest(only_ours, discordant, 0.5).pvalue) if discordant else 1.0


def mean(values: Sequence[float]) -> Estimate:
    """Mean of what each item has; seeded bootstrap interval."""
    return ratio(values, [1.0] * len(values))


def ratio(parts: Sequence[float], wholes: Sequence[float]) -> Estimate:
    """Sum of the parts over that of the wholes, an item having one of each; seeded bootstrap interval."""
    import numpy as np

    above, below = np.asarray(parts, float), np.asarray(wholes, float)
    items, generator, resampled = len(above), np.random.default_rng(SEED), np.empty(RESAMPLES)
    at_once = max(1, _DRAWN_AT_ONCE // items)
    for start in range(0, RESAMPLES, at_once):
        place = slice(start, min(start + at_once, RESAMPLES))
        drawn = generator.integers(items, size=(place.stop - place.start, items))
        resampled[place] = above[drawn].sum(axis=1) / below[drawn].sum(axis=1)
    return _percentiles(above.sum() / below.sum(), resampled)


def macro_f1_of_counts(counts: "np.ndarray", whole: "np.ndarray") -> "np.ndarray":
    """Macro-F1 of confusion counts [..., gold, predicted]: the mean of 2 TP / (gold + predicted).

    The labels are those that are used in `whole` [gold, predicted], the counts that others are drawn from.
    Columns after those of the labels are answers that are none of them.
    """
    import numpy as np

    right = np.diagonal(counts, axis1=-2, axis2=-1)
    f1 = 2 * right / np.maximum(_uses(counts), 1)
    return f1[..., _uses(whole) > 0].mean(axis=-1)


def _uses(counts: "np.ndarray") -> "np.ndarray":
    """How often each label is right or was given, of confusion counts."""
    return counts.sum(axis=-1) + counts.sum(axis=-2)[..., : counts.shape[-2]]


def _bootstrap(
    gold: Sequence[str],
    decisions: Sequence[Sequence[str | None]],
    labels: Sequence[str],
    statistic: Callable[["np.ndarray", "np.ndarray"], "np.ndarray"],
) -> Estimate:
    """Percentile interval of a statistic of the joint counts of right and other decisions on the same items.

    It is given counts, drawn or not, and those that they are drawn from. Other decisions may be none of the
    labels, which is counted after these.
    """
    import numpy as np

    shape = (len(labels), *[len(labels) + 1] * len(decisions))
    place: dict[str | None, int] = {label: index for index, label in enumerate(labels)}
    codes = [[place[label] for label in gold]]
    codes += [[place.get(label, len(labels)) for label in column] for column in decisions]
    counts = np.bincount(np.ravel_multi_index(codes, shape), minlength=int(np.prod(shape)))
    items = int(counts.sum())
    drawn = np.random.default_rng(SEED).multinomial(items, counts / items, size=RESAMPLES)
    whole = counts.reshape(shape)
    return _percentiles(statistic(whole, whole), statistic(drawn.reshape(-1, *shape), whole))


def _percentiles(value: "np.floating | np.ndarray", resampled: "np.ndarray") -> Estimate:
    import numpy as np

    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Estimate(float(value), float(low), float(high))
