"""The lineage: one folder per stage, in the order data flows."""

import warnings

# Checks per partition and backfill policies are preview and beta features of Dagster 1.13, which says so
# before every command.
warnings.filterwarnings("ignore", message=".* is currently in (preview|beta)")
