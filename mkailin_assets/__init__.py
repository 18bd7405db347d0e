"""The lineage: one folder per stage, in the order data flows."""
