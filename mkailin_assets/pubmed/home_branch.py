"""The one MeSH branch a citation is distilled in (docs/method.md)."""

import polars as pl

from mkailin_assets.mesh.hierarchy import MeshHierarchy

NO_HEADINGS = "no headings"
NO_KNOWN_HEADING = "no heading known to the release"
NO_PLACE = "no heading with a place in the tree"


class HomeBranches:
    """Home branches under one MeSH release. Immutable.

    A citation's home is the branch of its major-topic descriptor with the highest intrinsic IC; ties by tree
    number. Where no major topic counts, any heading does. Check tags, descriptors unknown to the release and
    those without a tree number do not count.
    """

    def __init__(self, hierarchy: MeshHierarchy) -> None:
        ic = hierarchy.intrinsic_ic()
        uis = list(hierarchy.uis)
        # Of a descriptor's tree numbers only the first can win, so one rank for each orders all candidates.
        places = sorted(
            (-ic[ui], min(numbers), ui)
            for ui in uis
            if not hierarchy.is_check_tag(ui) and (numbers := hierarchy.tree_numbers(ui))
        )
        ranks = {ui: rank for rank, (_, _, ui) in enumerate(places)}
        self._branches = pl.DataFrame(
            {"rank": range(len(places)), "home_branch": [number.split(".")[0] for _, number, _ in places]},
            schema={"rank": pl.Int32, "home_branch": pl.String},
        )
        self._ranks = pl.DataFrame(
            {"ui": uis, "rank": [ranks.get(ui) for ui in uis], "known": [True] * len(uis)},
            schema={"ui": pl.String, "rank": pl.Int32, "known": pl.Boolean},
        )
        self._names = pl.DataFrame(
            {"name": list(hierarchy.names), "named": list(hierarchy.names.values())},
            schema={"name": pl.String, "named": pl.String},
        )

    def of(self, headings: pl.Series) -> pl.DataFrame:
        """Columns home_branch and waiting, a row for each list of headings (`PubmedRecord.headings`).

        Where there is no home branch, `waiting` says why. Headings without UI are looked up by name, a
        preferred name before an entry term.
        """
        rows = pl.DataFrame({"row": pl.int_range(headings.len(), eager=True), "heading": headings})
        each = (
            rows.explode("heading", empty_as_null=False, keep_nulls=False)
            .unnest("heading")
            .join(self._names, on="name", how="left")
            .with_columns(ui=pl.coalesce("ui", "named"))
            .join(self._ranks, on="ui", how="left")
        )
        best = each.group_by("row").agg(
            pl.coalesce(pl.col("rank").filter("major").min(), pl.col("rank").min()), pl.col("known").any()
        )
        waiting = (
            pl.when(pl.col("home_branch").is_not_null())
            .then(None)
            .when(pl.col("known").is_null())
            .then(pl.lit(NO_HEADINGS))
            .when("known")
            .then(pl.lit(NO_PLACE))
            .otherwise(pl.lit(NO_KNOWN_HEADING))
        )
        return (
            rows.select("row")
            .join(best, on="row", how="left", maintain_order="left")
            .join(self._branches, on="rank", how="left", maintain_order="left")
            .select("home_branch", waiting=waiting)
        )
