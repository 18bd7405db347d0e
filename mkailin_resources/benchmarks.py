"""Benchmark files: questions that no corpus may contain and every model answers, and judged searches."""

import dagster as dg
from pydantic import Field


class BenchmarkFiles(dg.ConfigurableResource):
    """Where the benchmarks lie."""

    pubmedqa: str = Field(description="A JSON file in PubMedQA's format, such as its ori_pqal.json")
    retrieval: str = Field("", description="A folder of judged questions and documents in the form of BEIR")
    others: list[str] = Field(
        [], description="Further benchmarks, files or folders of files, that no training text may hold"
    )
