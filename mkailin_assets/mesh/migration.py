"""What changes from one MeSH release to another, and which citations that gives another home."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from mkailin_assets.mesh.hierarchy import MeshHierarchy
from mkailin_assets.mesh.tables import CHANGE_KINDS, CitationMove, MeshChange, MeshDescriptor
from mkailin_assets.pubmed.home_branch import HomeBranches

# To other branches, or to or from the head of one: by that a person sees that a branch comes or goes.
_MOVED = (pl.col("branches_before") != pl.col("branches_after")) | (
    pl.col("heads_before") != pl.col("heads_after")
)


class Release:
    """A MeSH release as one side of a comparison. Immutable.

    A tree file has names and tree numbers alone. `of_tree_file` takes what it lacks from a release that has
    descriptors; a name that is unknown there stands for its own UI, and citations' headings are then found by
    name where their UI is not known.
    """

    descriptors: pl.DataFrame
    """Table MeshDescriptor."""
    hierarchy: MeshHierarchy

    def __init__(self, descriptors: pl.DataFrame, by_name: bool = False) -> None:
        self.descriptors = descriptors
        self.hierarchy = MeshHierarchy.from_descriptors(descriptors)
        self._homes = HomeBranches(self.hierarchy)
        self._names = pl.Series(self.hierarchy.names.keys()), pl.Series(self.hierarchy.names.values())
        self._uis = pl.Series(self.hierarchy.uis)
        self._by_name = by_name

    @classmethod
    def of_tree_file(cls, tree_file: pl.DataFrame, year: int, other: pl.DataFrame) -> "Release":
        """From `read_tree_file` and the descriptors of another year.

        Descriptors without a place in the tree, which no tree file lists, are those of the other year.
        """
        places = {
            name: tuple(numbers)
            for name, numbers in tree_file.group_by("name").agg("tree_number").sort("name").iter_rows()
        }
        uis = counterparts(places, other)
        placed = pl.DataFrame(
            {
                "descriptor_ui": [uis.get(name, name) for name in places],
                "name": list(places),
                "tree_numbers": [list(numbers) for numbers in places.values()],
            },
            schema_overrides={"tree_numbers": pl.List(pl.String)},
        )
        borrowed = other.drop("tree_numbers").rename({"name": "other_name"})
        named = placed.join(borrowed, on="descriptor_ui", how="left", maintain_order="left")
        other_name = pl.concat_list("other_name").list.drop_nulls()
        descriptors = named.with_columns(
            pl.col("pharmacological_actions").fill_null([]),
            entry_terms=pl.concat_list(other_name, pl.col("entry_terms").fill_null([])),
        )
        unplaced = other.filter(pl.col("tree_numbers").list.len() == 0, ~pl.col("name").is_in(list(places)))
        columns = MeshDescriptor.create_empty().columns
        whole = pl.concat([descriptors.select(columns), unplaced.select(columns)])
        return cls(whole.with_columns(release_year=pl.lit(year, pl.Int32)), by_name=True)

    @property
    def year(self) -> int:
        """Its release year."""
        return int(self.descriptors.item(0, "release_year"))

    def with_uis(self, headings: pl.Series) -> pl.Series:
        """Lists of headings (`PubmedRecord.headings`) with the UI each has in this release, where it has one.

        As `HomeBranches` has it: the heading's own UI, and its name only where it has none.
        """
        ui, name = (pl.element().struct.field(field) for field in ("ui", "name"))
        if self._by_name:
            ui = ui.replace_strict(self._uis, self._uis, default=None)
        known = pl.coalesce(ui, name.replace_strict(*self._names, default=None))
        major = pl.element().struct.field("major")
        return headings.list.eval(pl.struct(ui=known, name=name, major=major))

    def homes(self, headings: pl.Series) -> pl.DataFrame:
        """Columns home_branch and waiting for lists that `with_uis` returned."""
        return self._homes.of(headings)


def counterparts(places: Mapping[str, Iterable[str]], descriptors: pl.DataFrame) -> dict[str, str]:
    """UI in `descriptors` (table MeshDescriptor) of the names of a tree file of another year.

    `places` are the file's tree numbers by name. A name is the descriptor that has it; else the one that has
    it as an entry term; else, where no term tells, the one that stands where it stood. The latter two only if
    the descriptor's own name is not in the file. Of several names for one descriptor that with the most
    places in common is it, then the first; the others have no counterpart.
    """
    names = MeshHierarchy.from_descriptors(descriptors).names
    own_names = dict(descriptors.select("name", "descriptor_ui").iter_rows())
    found = {name: own_names[name] for name in places if name in own_names}
    free = {ui for name, ui in own_names.items() if name not in places}
    numbers = {
        ui: set(of_ui)
        for ui, of_ui in descriptors.select("descriptor_ui", "tree_numbers").iter_rows()
        if ui in free
    }
    holders = {number: ui for ui, of_ui in numbers.items() for number in of_ui}
    candidates = []
    for name in places.keys() - found.keys():
        uis = {names[name]} if name in names else {holders[n] for n in places[name] if n in holders}
        candidates += [
            (name not in names, -len(numbers[ui] & set(places[name])), name, ui) for ui in uis & free
        ]
    for *_, name, ui in sorted(candidates):
        if ui in free and name not in found:
            found[name] = ui
            free.remove(ui)
    return found


def years_compared(in_use: int, newest: int, from_year: int | None, to_year: int | None) -> tuple[int, int]:
    """The years before and after: from the release in use to the newest, where nothing else is asked for."""
    before = from_year or in_use
    after = to_year or (in_use if from_year else newest)
    if in_use not in (before, after):
        raise ValueError(
            f"comparing MeSH {before} to {after}: neither is the release in use, {in_use}; "
            "give from_year or to_year, and leave the other out"
        )
    return before, after


def changes(before: Release, after: Release) -> pl.DataFrame:
    """Table MeshChange without its column citations; a descriptor that is renamed and moved has two rows."""
    both = _places(before, "before").join(_places(after, "after"), on="key", how="full", coalesce=True)
    rules = {
        "added": pl.col("name_before").is_null(),
        "dropped": pl.col("name_after").is_null(),
        "renamed": pl.col("name_before") != pl.col("name_after"),
        "moved": _MOVED,
    }
    found = pl.concat([both.filter(rules[kind]).with_columns(kind=pl.lit(kind)) for kind in CHANGE_KINDS])
    named = _named_by(found.filter(kind="added")["name_after"], before)
    named |= _named_by(found.filter(kind="dropped")["name_before"], after)
    lists = pl.col("branches_before", "branches_after", "tree_numbers_before", "tree_numbers_after")
    name = pl.coalesce("name_before", "name_after")
    return found.with_columns(
        lists.fill_null([]),
        # In a tree file a name stands for the UI it does not give.
        descriptor_ui=pl.when(pl.col("key") != name).then("key"),
        covered_by=pl.when(pl.col("kind").is_in(["added", "dropped"])).then(
            name.replace_strict(named, default=None, return_dtype=pl.String)
        ),
    )


def moved_within_branches(before: Release, after: Release) -> int:
    """How many descriptors have other tree numbers in the same branches; they are no rows of MeshChange."""
    both = _places(before, "before").join(_places(after, "after"), on="key")
    return both.filter(pl.col("tree_numbers_before") != pl.col("tree_numbers_after"), ~_MOVED).height


def _places(release: Release, side: str) -> pl.DataFrame:
    first_parts = pl.element().str.split(".").list.first()
    return release.descriptors.select(
        pl.col("descriptor_ui").alias("key"),
        pl.col("name").alias(f"name_{side}"),
        pl.col("tree_numbers").list.eval(first_parts).list.unique().list.sort().alias(f"branches_{side}"),
        pl.col("tree_numbers").list.sort().alias(f"tree_numbers_{side}"),
        pl.col("tree_numbers").list.eval(_heads(pl.element())).list.sort().alias(f"heads_{side}"),
    )


def _heads(tree_numbers: pl.Expr) -> pl.Expr:
    return tree_numbers.filter(~tree_numbers.str.contains(".", literal=True))


def _named_by(names: pl.Series, release: Release) -> dict[str, str]:
    """Which descriptor of the release has each of these names, as its own or as an entry term."""
    own_names = dict(release.descriptors.select("descriptor_ui", "name").iter_rows())
    terms = release.hierarchy.names
    return {name: own_names[terms[name]] for name in names if name in terms}


def current_headings_by_file(
    current: pl.DataFrame, files: Mapping[str, pl.LazyFrame]
) -> Iterator[tuple[pl.Series, pl.Series]]:
    """PMIDs and headings of the current citations, one file at a time.

    `current` is table CurrentCitation, `files` table PubmedRecord by file. Raises `ValueError` when `current`
    names a file that is not among them.
    """
    key = ["pubmed_file", "position", "pmid"]
    wanted = current.filter(pl.col("state") == "current").select(key)
    places = wanted.partition_by("pubmed_file", as_dict=True)
    if missing := sorted(name for (name,) in places if name not in files):
        raise ValueError(
            f"reading the headings of the current citations: pubmed_citations has no {', '.join(missing)}; "
            "materialize it, or current_citations again"
        )
    for (name,), of_file in places.items():
        records = files[name].filter(pl.col("record") == "citation").select(*key, "headings")
        found = records.join(of_file.lazy(), on=key, how="semi").collect()
        yield found["pmid"], found["headings"]


@dataclass(frozen=True)
class Migration:
    """What one release after another means for the citations there are."""

    changes: pl.DataFrame
    """Table MeshChange."""
    moves: pl.DataFrame
    """Table CitationMove."""
    citations: int
    """Current citations that were looked at."""


def migrate(before: Release, after: Release, citations: Iterable[tuple[pl.Series, pl.Series]]) -> Migration:
    """Compare two releases, and the home of each citation under both.

    `citations` are PMIDs and headings (`current_headings_by_file`), chunk by chunk: memory grows with the
    largest and with the moves.
    """
    changed = changes(before, after)
    keys = changed["key"].unique()
    touched: Counter[str] = Counter()
    moves: list[pl.DataFrame] = [CitationMove.create_empty()]
    looked_at = 0
    for pmids, headings in citations:
        earlier, later = before.with_uis(headings), after.with_uis(headings)
        touched.update(_touched(keys, earlier, later))
        moves.append(_moves(pmids, before.homes(earlier), after.homes(later)))
        looked_at += pmids.len()
    counted = pl.col("key").replace_strict(dict(touched), default=0, return_dtype=pl.Int64)
    order = (pl.col("kind").cast(pl.Enum(CHANGE_KINDS)), -pl.col("citations"))
    return Migration(
        changed.with_columns(citations=counted)
        .sort(*order, pl.coalesce("name_before", "name_after"))
        .select(MeshChange.create_empty().columns),
        pl.concat(moves).sort("pmid"),
        looked_at,
    )


def _touched(keys: pl.Series, *sides: pl.Series) -> dict[str, int]:
    """How many citations carry each of these descriptors, under one release or the other."""
    ui = pl.element().struct.field("ui")
    carried = [
        pl.DataFrame({"row": pl.int_range(headings.len(), eager=True), "key": headings.list.eval(ui)})
        .explode("key", empty_as_null=False, keep_nulls=False)
        .filter(pl.col("key").is_in(keys.implode()))
        for headings in sides
    ]
    return dict(pl.concat(carried).unique().group_by("key").len().iter_rows())


def _moves(pmids: pl.Series, before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    homes = pl.DataFrame(
        {
            "pmid": pmids,
            "from_branch": before["home_branch"],
            "to_branch": after["home_branch"],
            "waiting": after["waiting"],
        }
    )
    return homes.filter(pl.col("from_branch").ne_missing(pl.col("to_branch")))


def branch_flows(moves: pl.DataFrame) -> pl.DataFrame:
    """Columns from_branch, to_branch, citations of table CitationMove, most first; 'waiting' is no branch."""
    ends = pl.col("from_branch", "to_branch").fill_null("waiting")
    counted = moves.group_by(ends).agg(citations=pl.len())
    return counted.sort(-pl.col("citations").cast(pl.Int64), "from_branch", "to_branch")


def branches_of(release: Release) -> dict[str, str]:
    """Names of a release's branches by code, in the order of the tree."""
    heads = release.descriptors.with_columns(pl.col("tree_numbers").list.eval(_heads(pl.element())))
    of_branches = heads.explode("tree_numbers", empty_as_null=False)
    return dict(of_branches.select("tree_numbers", "name").sort("tree_numbers").iter_rows())
