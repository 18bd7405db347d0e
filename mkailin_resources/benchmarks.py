"""Benchmark files, which no corpus may contain and every model answers."""

import dagster as dg
from pydantic import Field


class BenchmarkFiles(dg.ConfigurableResource):
    """Where the benchmarks lie."""

    pubmedqa: str = Field(description="A JSON file in PubMedQA's format, such as its ori_pqal.json")
