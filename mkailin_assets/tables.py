"""From a table's schema to Dagster: the type checked at asset boundaries and the columns the UI shows."""

from functools import cache
from typing import TYPE_CHECKING, Any

import dataframely as dy
import polars as pl

# Schemas are read by modules that know nothing of Dagster, too: it is imported where it is used.
if TYPE_CHECKING:
    import dagster as dg


def one_of(values: tuple[str, ...], **column: Any) -> dy.String:
    """A text column that holds one of a few words."""
    return dy.String(regex=f"^({'|'.join(values)})$", **column)


def table(schema: type[dy.Schema]) -> dict[str, Any]:
    """Arguments that make `dg.asset` hold a table of this schema, checked before it is published.

    A single-run backfill returns a table per partition, in a dict; each is checked.
    """
    return {
        "dagster_type": _dagster_type(schema),
        "metadata": {"dagster/column_schema": column_schema(schema)},
        "owners": ["team:m-kailin"],
    }


@cache
def _dagster_type(schema: type[dy.Schema]) -> "dg.DagsterType":
    import dagster as dg

    # Cached, since Dagster refuses two types of one name.
    return dg.DagsterType(
        name=schema.__name__,
        description=schema.__doc__,
        typing_type=pl.DataFrame,
        type_check_fn=lambda _, value: _check(schema, value),
    )


def _check(schema: type[dy.Schema], value: object) -> "dg.TypeCheck":
    import dagster as dg

    from mkailin_resources.storage import LogUpdate

    try:
        for frame in value.values() if isinstance(value, dict) else [value]:
            rows = frame.rows if isinstance(frame, LogUpdate) else frame
            if not isinstance(rows, pl.DataFrame | pl.LazyFrame):
                return dg.TypeCheck(False, f"{schema.__name__}: expected a table, got {type(rows).__name__}")
            if isinstance(rows, pl.LazyFrame):
                # Too large for the memory: made of parts that were validated one by one.
                if rows.collect_schema() != schema.create_empty().schema:
                    return dg.TypeCheck(False, f"{schema.__name__}: columns are {rows.collect_schema()}")
            else:
                schema.validate(rows)
    except (dy.exc.ValidationError, dy.exc.SchemaError) as error:
        return dg.TypeCheck(False, f"{schema.__name__}: {error}")
    return dg.TypeCheck(True)


def column_schema(schema: type[dy.Schema]) -> "dg.TableSchema":
    """The schema as the UI shows it: name, type, description, whether it is required and unique."""
    import dagster as dg

    types = schema.create_empty().schema
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name,
                str(types[name]),
                description=column.description,
                constraints=dg.TableColumnConstraints(nullable=column.nullable, unique=column.primary_key),
            )
            for name, column in schema.columns().items()
        ]
    )
