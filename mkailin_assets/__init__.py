"""The lineage: one folder per stage, in the order data flows."""

import warnings

import dagster as dg

# Checks per partition and backfill policies are preview and beta features of Dagster 1.13, which says so
# before every command.
warnings.filterwarnings("ignore", category=dg.PreviewWarning)
warnings.filterwarnings("ignore", category=dg.BetaWarning)
