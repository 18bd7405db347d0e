"""Questions that were asked before, in the same or nearly the same words."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

SHINGLE_CHARACTERS = 5


def duplicates(questions: Sequence[str], similarity: float) -> list[int | None]:
    """For each question the index of an earlier one that it repeats, None for what is new.

    Two questions repeat each other when the Jaccard similarity of their sets of five characters in a
    row is at least `similarity` (above 0, at most 1); what repeats is compared with nothing further.
    Exact, by the prefix filter of Chaudhuri et al. 2006 and Bayardo et al. 2007: of two such sets, both
    ordered from the rarest shingle, the first few share one. Shingles are recomputed, not kept: memory
    grows with the text of the questions.
    """
    frequency = Counter(shingle for question in questions for shingle in shingles(question))
    holders: defaultdict[str, list[int]] = defaultdict(list)
    repeated: list[int | None] = []
    for index, question in enumerate(questions):
        mine = shingles(question)
        # Rounding must not make the prefix a shingle short.
        prefix = len(mine) - math.ceil(similarity * len(mine) - 1e-9) + 1
        rarest = sorted(mine, key=lambda shingle: (frequency[shingle], shingle))[:prefix]
        candidates = sorted({holder for shingle in rarest for holder in holders[shingle]})
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
