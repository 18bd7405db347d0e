"""What asking language models came to: tokens, money and licences; and the job that prunes what is kept."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from mkailin_assets.metadata import preview
from mkailin_resources.generation import Generation, Tally
from mkailin_resources.models.licences import licence_of
from mkailin_resources.storage import Storage

# Tables whose rows name the fingerprints of the texts they were made of.
TABLES_OF_AGENTS = ("candidate_questions", "question_preferences", "distilled_questions", "generated_qa")
TABLES_OF_TEXTS = (*TABLES_OF_AGENTS, "evaluated_qa", "ablated_corpus")
_NAMED = ("fingerprint", "fingerprints", "entailment_fingerprint")


def generation_metadata(tallies: Sequence[Tally], generation: Generation) -> dict[str, Any]:
    """Of one materialization: requests reused, generated and failed, tokens, rate, licences, and money."""
    seconds = sum(tally.seconds for tally in tallies)
    tokens_out = sum(tally.tokens_out for tally in tallies)
    requests = sum(tally.requests for tally in tallies)
    by_generator = pl.DataFrame(
        [
            {
                "generator": tally.generator,
                "prompt": tally.prompt_version,
                "requests": tally.requests,
                "reused": tally.reused,
                "generated": tally.generated,
                "failed": tally.failed,
                "tokens in": tally.tokens_in,
                "tokens out": tally.tokens_out,
                "licence": (licence := licence_of(tally.generator)).licence,
                "may train others": licence.may_train,
                "condition": licence.condition,
            }
            for tally in tallies
        ]
    )
    return {
        "requests": requests,
        "reused": sum(tally.reused for tally in tallies),
        "generated": sum(tally.generated for tally in tallies),
        "failed": sum(tally.failed for tally in tallies),
        "tokens_in": sum(tally.tokens_in for tally in tallies),
        "tokens_out": tokens_out,
        "tokens_per_second": round(tokens_out / seconds, 1) if seconds else 0.0,
        "seconds": round(seconds, 3),
        "requests_per_second": round(requests / seconds, 1) if seconds else 0.0,
        "generators": preview(by_generator, rows=by_generator.height),
        **_money(
            generation,
            spent=((tally.generator, tally.tokens_in, tally.tokens_out) for tally in tallies),
            saved=((tally.generator, tally.reused_tokens_in, tally.reused_tokens_out) for tally in tallies),
        ),
    }


def corpus_cost(generation: Generation) -> dict[str, Any]:
    """Of the whole corpus: tokens and money of all that is kept, and what reuse has saved so far."""
    usage = generation.store.usage()
    if usage.is_empty():
        return {}
    saved = generation.store.ledger().group_by("generator").agg(pl.col("^reused_tokens.*$").sum())
    return {
        "texts_kept": int(usage["rows"].sum()),
        "tokens_in": int(usage["tokens_in"].sum()),
        "tokens_out": int(usage["tokens_out"].sum()),
        "tokens_saved_by_reuse": int(saved.select(pl.sum_horizontal(pl.col("^reused.*$").sum())).item()),
        "texts_by_generator": preview(usage, rows=usage.height),
        **_money(
            generation,
            spent=usage.select("generator", "tokens_in", "tokens_out").iter_rows(),
            saved=saved.select("generator", "reused_tokens_in", "reused_tokens_out").iter_rows(),
        ),
    }


def _money(
    generation: Generation, spent: Iterable[tuple[str, int, int]], saved: Iterable[tuple[str, int, int]]
) -> dict[str, Any]:
    """Money by the prices the user gave; nothing where none was given, since prices are never guessed."""
    spent, saved = list(spent), list(saved)
    sums = {
        name: [price for tokens in of if (price := generation.price(*tokens)) is not None]
        for name, of in (("money_spent", spent), ("money_saved_by_reuse", saved))
    }
    money: dict[str, Any] = {name: round(sum(prices), 6) for name, prices in sums.items() if prices}
    unpriced = sorted({tokens[0] for tokens in spent} - generation.prices.keys())
    return money | {"models_without_price": unpriced} if money and unpriced else money


class PruneConfig(dg.Config):
    """What to remove of the texts that models wrote."""

    older_than_days: float = Field(30, ge=0, description="Texts no table names and older than this go")


@dg.op
def prune_unused_texts(
    context: dg.OpExecutionContext, storage: Storage, generation: Generation, config: PruneConfig
) -> None:
    """Remove the texts of models that no row of a table rests on; to have one again is to pay again."""
    before = datetime.now(UTC) - timedelta(days=config.older_than_days)
    pruned = generation.store.prune(used_texts(storage), before)
    context.log.info(f"{pruned.rows:,} texts removed, {pruned.bytes:,} bytes before compression")
    context.add_output_metadata({"texts_removed": pruned.rows, "bytes": pruned.bytes})


def used_texts(storage: Storage) -> set[str]:
    """Fingerprints of the texts that the tables rest on."""
    used: set[str] = set()
    for name in TABLES_OF_TEXTS:
        for partition in storage.partitions_published_at(name):
            rows = storage.scan_table(name, partition)
            if rows is not None:
                named = [pl.col(name) for name in _NAMED if name in rows.collect_schema()]
                found = rows.select(pl.concat_list(named).list.explode().drop_nulls().alias("fingerprint"))
                used.update(found.collect().to_series())
    return used


@dg.job(description="Remove what models wrote and no table rests on any longer.")
def prune_generations() -> None:
    """Remove what models wrote and no table rests on any longer."""
    prune_unused_texts()
