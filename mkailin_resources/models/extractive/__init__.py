"""Question and answer agents that need no model weights: published heuristics over English abstracts."""

from mkailin_resources.models.extractive.agents import (
    ConclusionAnswerer,
    ConclusionQuestioner,
    StatementTitleQuestioner,
)

__all__ = ["ConclusionAnswerer", "ConclusionQuestioner", "StatementTitleQuestioner"]
