"""What is decided by a hash of the PMID alone: splits, and every order that has to look drawn.

So neither growth nor another machine moves a citation.
"""

import hashlib

import polars as pl

# Percent of the sources; a citation stays where it is whatever arrives, so these never change.
TRAIN_PERCENT, VALIDATION_PERCENT = 80, 10


def split_of(pmid: int) -> str:
    """The split of a source citation: train, validation or test."""
    place = pmid_hash(pmid, "split") % 100
    if place < TRAIN_PERCENT:
        return "train"
    return "validation" if place < TRAIN_PERCENT + VALIDATION_PERCENT else "test"


def pmid_hash(pmid: int, purpose: str) -> int:
    """64 bits that look random, the same on every machine; each purpose has its own, unrelated ones."""
    digest = hashlib.blake2b(str(pmid).encode(), digest_size=8, person=purpose.encode()).digest()
    return int.from_bytes(digest, "big")


def by_hash(purpose: str) -> pl.Expr:
    """`pmid_hash` of the column pmid: an order that looks drawn, and stays as the corpus grows."""
    return pl.col("pmid").map_elements(lambda pmid: pmid_hash(pmid, purpose), return_dtype=pl.UInt64)
