"""The ground on which generators are compared: citations nobody is trained on, each in one branch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mkailin_assets.checkpoints import publish_once
from mkailin_assets.intervals import Estimate
from mkailin_assets.preferences.branches import together
from mkailin_assets.preferences.trial import CITATION_COLUMNS, held_out, is_better, lead, score_of
from mkailin_assets.pubmed.tables import BranchCitation
from mkailin_assets.retrieval.pairs import is_held_out
from mkailin_resources.storage import Storage

SCHEMA = BranchCitation.create_empty().schema


class Placed:
    """A similarity by which a citation can be scored if its heading is D1."""

    def best_match_averages(
        self, sources: Sequence[Sequence[str]], contexts: Sequence[Sequence[str]]
    ) -> np.ndarray:
        return np.array([1.0 if "D1" in source else np.nan for source in sources])


def citations(*pmids: int, branch: str = "C04", heading: str = "D1", text: bool = True) -> pl.LazyFrame:
    section = {"label": None, "category": None, "text": "An abstract."}
    made: dict[str, Any] = {
        "branch": branch,
        "pubmed_file": "f",
        "content_hash": "h",
        "abstract": [section] if text else [],
        "headings": [{"ui": heading, "name": "n", "major": False, "qualifiers": []}],
        "publication_types": [],
    }
    empty = dict.fromkeys(SCHEMA)
    return pl.DataFrame([empty | made | {"pmid": pmid} for pmid in pmids], schema=SCHEMA).lazy()


def drawn(*frames: pl.LazyFrame, at_most: int = 10) -> list[int]:
    rows = pl.concat(frames).select(CITATION_COLUMNS)
    return held_out(rows, Placed(), at_most)["pmid"].to_list()


HELD_OUT = [pmid for pmid in range(1, 2000) if is_held_out(pmid)]
TRAINED = [pmid for pmid in range(1, 2000) if not is_held_out(pmid)]


def test_only_citations_that_nobody_is_trained_on_and_that_can_be_scored_are_drawn() -> None:
    good, unplaced, bare = HELD_OUT[:3], HELD_OUT[3:6], HELD_OUT[6:9]
    frames = [
        citations(*good, *TRAINED[:50]),
        citations(*unplaced, heading="D9"),
        citations(*bare, text=False),
    ]
    assert drawn(*frames) == good


def test_growth_of_the_corpus_moves_no_citation_out_that_still_ranks_among_the_first() -> None:
    few, many = drawn(citations(*HELD_OUT[:40])), drawn(citations(*HELD_OUT))
    assert len(few) == len(many) == 10
    assert set(many) & set(HELD_OUT[:40]) <= set(few)


def test_the_draw_goes_on_where_the_first_ones_cannot_be_scored() -> None:
    first = drawn(citations(*HELD_OUT))
    others = [pmid for pmid in HELD_OUT if pmid not in first]
    again = drawn(citations(*first, heading="D9"), citations(*others))
    assert len(again) == 10
    assert not set(again) & set(first)
    assert drawn(citations()) == []


def test_a_citation_that_stands_in_two_branches_is_left_out() -> None:
    rows = together(BranchCitation, [citations(1, 2), citations(2, 3, branch="C10")], ("pmid", "branch"))
    assert sorted(rows.collect().rows()) == [(1, "C04"), (3, "C10")]
    assert together(BranchCitation, []).collect().is_empty()


@pytest.mark.parametrize(
    ("low", "number", "better"), [(0.1, 20, True), (0.1, 19, False), (0.0, 500, False), (-0.1, 500, False)]
)
def test_a_lead_counts_if_its_interval_lies_above_0_over_twenty_citations(
    low: float, number: int, better: bool
) -> None:
    assert is_better(Estimate(low + 0.1, low, low + 0.2), number) is better


def test_scores_are_compared_citation_by_citation() -> None:
    tried = pl.DataFrame(
        [
            {"contestant": name, "pmid": pmid, "score": pmid / 100 + better}
            for name, better in (("one", 0.0), ("two", 0.25))
            for pmid in range(1, 31)
        ]
    )
    gain = lead(tried, "two", "one")
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.25, 0.25, 0.25))
    assert score_of(tried, "one").value == pytest.approx(0.155)
    with pytest.raises(ValueError, match="one was tried on 29 citations, two on 30"):
        lead(tried.slice(1), "one", "two")


def test_a_checkpoint_is_made_once_and_the_work_of_another_one_stays(tmp_path: Path) -> None:
    storage = Storage(root=str(tmp_path))
    made: list[str] = []

    def training(fingerprint: str, is_killed: bool = False) -> Any:
        def train(folder: Path, work: Path) -> None:
            (work / fingerprint).mkdir(parents=True, exist_ok=True)
            (work / fingerprint / "checkpoint").touch()
            if is_killed:
                raise KeyboardInterrupt
            made.append(fingerprint)
            (folder / "training.json").write_text(fingerprint)

        return train

    with pytest.raises(KeyboardInterrupt):
        publish_once(storage, "generators", "killed", training("killed", is_killed=True))
    first = publish_once(storage, "generators", "whole", training("whole"))
    again = publish_once(storage, "generators", "whole", training("whole"))
    assert (first.trained_now, again.trained_now, first.uri) == (True, False, again.uri)
    assert made == ["whole"]
    work = storage.scratch() / "generators_training"
    assert [path.name for path in work.iterdir()] == ["killed"]
    assert (storage.local_folder(first.uri) / "training.json").read_text() == "whole"
