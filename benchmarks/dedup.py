"""Near-duplicate questions: pairs found by MinHash (rensa) and verified, by datasketch, and all there are.

100,000 made-up questions from a seed: ten templates, filled in from lists of made-up terms, and about a third
of them earlier ones with a word or a letter changed, added, left out, or as they were. All find the pairs of
Jaccard similarity 0.7 and more over five characters in a row.

`recall` and `precision` are ours, against an exact prefix filter (Bayardo et al. 2007) over sets of bytes in
plain Python, which shares nothing with ours. `vs_datasketch` is the CPU time of datasketch's MinHash and
MinHashLSH, 128 permutations and the bands that it chooses for 0.7, by the CPU time of ours: in turn, in this
process, median of the rounds. datasketch gets the sets ready made, is filled in bulk, and hashes by CRC-32,
which is quicker than the SHA-1 that it takes unless told; ours starts from the text. What datasketch finds
counts as it is, unverified.

`million` is `duplicates` on 1,000,000 such questions, in a process of its own; `mb_before` has the questions.
"""

import json
import math
import random
import zlib
from collections import Counter, defaultdict
from itertools import chain
from string import ascii_lowercase

from benchmarks.pubmed_stage import in_child, measured
from benchmarks.report import Goal, Report, interleaved_medians
from mkailin_assets.corpus.duplicates import duplicates, similar_pairs

_SEED = 20260107
_QUESTIONS, _MANY = 100_000, 1_000_000
_SIMILARITY = 0.7
_COPIES = 0.33
_ROUNDS = 3
# Rare members that two sets must share before the exact method compares them whole: its speed alone.
_SHARED = 6

_TEMPLATES = (
    " does {cause} {verb} {gene} in {people} ",
    " what is known about {cause} in {people} with {disease} ",
    " is {cause} associated with {disease} in {people} ",
    " what is the role of {gene} in {disease} ",
    " how does {cause} affect {gene} in {people} with {disease} ",
    " are {people} with {disease} at risk of {outcome} after {cause} ",
    " can {gene} predict {outcome} in {people} with {disease} ",
    " is there a relationship between {cause} and {gene} in {disease} ",
    " does treatment with {cause} improve {outcome} in {people} with {disease} ",
    " what are the effects of {cause} on {gene} and {outcome} in {people} ",
)
_TERMS = {"cause": 3000, "gene": 3000, "disease": 1500, "outcome": 800, "people": 120, "verb": 60}
_SYLLABLES = "ba ce co da du fe gi ha io la li mo ne ni no pa pe po ra re ri sa se so ta te ti va".split()
_ENDINGS = "cyt hem neu itis osis ase oma ine tri pro".split()

Pairs = set[tuple[int, int]]


def questions(count: int) -> list[str]:
    """So many questions as `normalised` leaves them, about half of which are like another."""
    chance = random.Random(_SEED)
    terms = {
        kind: [" ".join(_word(chance) for _ in range(chance.randint(1, 3))) for _ in range(size)]
        for kind, size in _TERMS.items()
    }
    asked: list[str] = []
    while len(asked) < count:
        if asked and chance.random() < _COPIES:
            asked.append(_changed(chance.choice(asked), chance))
        else:
            filling = {kind: chance.choice(known) for kind, known in terms.items()}
            asked.append(chance.choice(_TEMPLATES).format(**filling))
    return asked


def _word(chance: random.Random) -> str:
    return "".join(chance.choices(_SYLLABLES + _ENDINGS, k=chance.randint(2, 5)))


def _changed(question: str, chance: random.Random) -> str:
    words = question.split()
    place = chance.randrange(len(words))
    change = chance.choice(["copy", "letter", "letter", "word", "word", "longer", "shorter"])
    if change == "letter":
        at = chance.randrange(len(words[place]))
        words[place] = words[place][:at] + chance.choice(ascii_lowercase) + words[place][at + 1 :]
    elif change == "word":
        words[place] = _word(chance)
    elif change == "longer":
        words.insert(place, _word(chance))
    elif change == "shorter":
        del words[place]
    return f" {' '.join(words)} "


def _sets(asked: list[str]) -> list[set[bytes]]:
    return [{text[at : at + 5].encode() for at in range(max(len(text) - 4, 1))} for text in asked]


def _exact(sets: list[set[bytes]]) -> Pairs:
    """Every pair of sets that are similar enough: of the rarest members of both, a few are shared."""
    frequency = Counter(chain.from_iterable(sets))
    holders: defaultdict[bytes, list[int]] = defaultdict(list)
    must_share: list[int] = []
    pairs: Pairs = set()
    for index, mine in enumerate(sets):
        overlap = math.ceil(_SIMILARITY * len(mine) - 1e-9)
        must_share.append(min(_SHARED, overlap))
        rarest = sorted(mine, key=lambda member: (frequency[member], member))
        prefix = rarest[: len(mine) - overlap + must_share[index]]
        for other, shared in Counter(chain.from_iterable(holders[member] for member in prefix)).items():
            if shared >= min(must_share[index], must_share[other]):
                union = len(mine | sets[other])
                if len(mine) + len(sets[other]) - union >= _SIMILARITY * union - 1e-9:
                    pairs.add((index, other))
        for member in prefix:
            holders[member].append(index)
    return pairs


def _datasketch(sets: list[set[bytes]]) -> Pairs:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=_SIMILARITY, num_perm=128)
    hashed = MinHash.bulk(sets, num_perm=128, hashfunc=zlib.crc32)
    with index.insertion_session() as session:
        for key, one in enumerate(hashed):
            session.insert(key, one, check_duplication=False)
    return {(key, other) for key, one in enumerate(hashed) for other in index.query(one) if other < key}


def run() -> Report:
    """Measure; nothing is needed but datasketch, which the extra `dev` brings."""
    asked = questions(_QUESTIONS)
    sets = _sets(asked)
    similar_pairs(asked[:100], _SIMILARITY)
    found: dict[str, Pairs] = {}
    seconds = interleaved_medians(
        {
            "ours": lambda: found.update(ours=set(similar_pairs(asked, _SIMILARITY).iter_rows())),
            "datasketch": lambda: found.update(datasketch=_datasketch(sets)),
        },
        rounds=_ROUNDS,
    )
    truth = _exact(sets)
    recall = {name: len(pairs & truth) / len(truth) for name, pairs in found.items()}
    precision = {name: len(pairs & truth) / len(pairs) for name, pairs in found.items()}
    ratio = seconds["datasketch"] / seconds["ours"]
    results = {
        "questions": _QUESTIONS,
        "pairs": len(truth),
        "questions_in_pairs": len(set(chain.from_iterable(truth))),
        "cpu_seconds": seconds,
        "questions_per_cpu_second": _QUESTIONS / seconds["ours"],
        "recall": recall,
        "precision": precision,
        "vs_datasketch": ratio,
        "million": in_child(__name__),
    }
    return Report(
        results,
        [
            Goal("recall", recall["ours"], 0.999, at_least=True),
            Goal("precision", precision["ours"], 1.0, at_least=True),
            Goal("vs_datasketch", ratio, 1.5, at_least=True),
        ],
    )


if __name__ == "__main__":
    many = questions(_MANY)
    duplicates(many[:100], _SIMILARITY)
    print(json.dumps(measured(lambda: duplicates(many, _SIMILARITY))))
