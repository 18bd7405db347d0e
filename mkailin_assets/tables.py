"""From a table's schema to Dagster: the type checked at asset boundaries and the columns the UI shows."""

from functools import cache
from typing import Any

import dagster as dg
import dataframely as dy
import polars as pl


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
def _dagster_type(schema: type[dy.Schema]) -> dg.DagsterType:
    # Cached, since Dagster refuses two types of one name.
    return dg.DagsterType(
        name=schema.__name__,
        description=schema.__doc__,
        typing_type=pl.DataFrame,
        type_check_fn=lambda _, value: _check(schema, value),
    )


def _check(schema: type[dy.Schema], value: object) -> dg.TypeCheck:
    try:
        for frame in value.values() if isinstance(value, dict) else [value]:
            if not isinstance(frame, pl.DataFrame):
                return dg.TypeCheck(False, f"{schema.__name__}: expected a table, got {type(frame).__name__}")
            schema.validate(frame)
    except (dy.exc.ValidationError, dy.exc.SchemaError) as error:
        return dg.TypeCheck(False, f"{schema.__name__}: {error}")
    return dg.TypeCheck(True)


def column_schema(schema: type[dy.Schema]) -> dg.TableSchema:
    """The schema as the UI shows it: name, type, description, whether it is required and unique."""
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
