"""The lineage: one folder per stage, in the order data flows."""

import warnings

import dagster as dg

# Checks per partition are a preview feature of Dagster 1.13; its notice would stand before every command.
warnings.filterwarnings("ignore", category=dg.PreviewWarning)
