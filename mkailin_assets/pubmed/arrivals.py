"""Which of the files on NLM's server come next, and which of those that were read have had their year."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mkailin_assets.pubmed.current import file_order

# A file whose run failed so often waits for a person.
ATTEMPTS = 3


@dataclass(frozen=True)
class Arrivals:
    """Keys of PubMed files, in the order of their year and number."""

    to_fetch: list[str]
    to_retire: list[str]
    given_up: list[str]


def arrivals(
    offered: Sequence[tuple[str, str]],
    registered: Collection[str],
    parsed: Collection[str],
    *,
    attempts: Mapping[str, int],
    under_way: Collection[str],
    at_most: int,
) -> Arrivals:
    """What to do about the files that the server offers, as (key, directory).

    To fetch: those that are neither `parsed` nor `under_way`, unless there were `ATTEMPTS` already, the
    lowest number first; with those under way no more than `at_most`. To retire: a yearly baseline repeats
    all of PubMed, so once every file of the newest one is parsed, the `registered` files of earlier years say
    nothing more; until then they stay, for the new year's files are not whole. It is whole when its numbers
    have no gap and the first update file after them is there: NLM publishes over hours.
    """
    newest = max((file_order(key)[0] for key, directory in offered if directory == "baseline"), default=0)
    of_year = {file_order(key): (key, directory) for key, directory in offered}
    baseline = {key for key, directory in offered if directory == "baseline" and file_order(key)[0] == newest}
    numbers = sorted(file_order(key)[1] for key in baseline)
    _, next_directory = of_year.get((newest, len(numbers) + 1), ("", ""))
    is_whole = numbers == list(range(1, len(numbers) + 1)) and next_directory == "updatefiles"
    first_year = newest if is_whole and baseline <= set(parsed) else 0
    current = sorted({key for key, _ in offered if file_order(key)[0] >= first_year}, key=file_order)
    waiting = [key for key in current if key not in parsed and key not in under_way]
    given_up = [key for key in waiting if attempts.get(key, 0) >= ATTEMPTS]
    return Arrivals(
        [key for key in waiting if key not in given_up][: max(at_most - len(under_way), 0)],
        sorted((key for key in registered if 0 < file_order(key)[0] < first_year), key=file_order),
        given_up,
    )
