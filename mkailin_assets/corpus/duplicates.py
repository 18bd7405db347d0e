"""Questions that were asked before, in the same or nearly the same words."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain

SHINGLE_CHARACTERS = 5
# Rare shingles that two questions must share before they are compared whole.
_SHARED = 6


def duplicates(questions: Sequence[str], similarity: float) -> list[int | None]:
    """For each question the index of an earlier one that it repeats, None for what is new.

    Two questions repeat each other when the Jaccard similarity of their sets of five characters in a
    row is at least `similarity` (above 0, at most 1); what repeats is compared with nothing further.
    Exact, by a prefix filter (Bayardo et al. 2007, with longer prefixes as Wang et al. 2012): of two
    such sets, both ordered from the rarest shingle, the first ones share a few. Shingles are computed
    again, not kept: memory grows with the text of the questions.
    """
    frequency = Counter(chain.from_iterable(map(shingles, questions)))
    holders: defaultdict[str, list[int]] = defaultdict(list)
    shared: list[int] = []
    repeated: list[int | None] = []
    for index, question in enumerate(questions):
        mine = shingles(question)
        # Rounding must not ask for a shingle too many.
        overlap = math.ceil(similarity * len(mine) - 1e-9)
        shared.append(min(_SHARED, overlap))
        prefix = len(mine) - overlap + shared[index]
        rarest = sorted(mine, key=lambda shingle: (frequency[shingle], shingle))[:prefix]
        counts = Counter(chain.from_iterable(holders[shingle] for shingle in rarest))
        candidates = sorted(it for it, count in counts.items() if count >= min(shared[index], shared[it]))
        repeats = (it for it in candidates if jaccard(mine, shingles(questions[it])) >= similarity)
        repeated.append(next(repeats, None))
        if repeated[-1] is None:
            for shingle in rarest:
                holders[shingle].append(index)
    return repeated


def shingles(text: str) -> set[str]:
    """Every run of five characters; the text itself when it is shorter."""
    last = max(len(text) - SHINGLE_CHARACTERS, 0)
    return {text[at : at + SHINGLE_CHARACTERS] for at in range(last + 1)}


def jaccard(a: set[str], b: set[str]) -> float:
    """Shared members by all members, 0 to 1 (Jaccard 1912); the sets are not both empty."""
    return len(a & b) / len(a | b)
