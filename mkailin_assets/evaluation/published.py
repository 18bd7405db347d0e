"""Figures of others on the same benchmarks, with where they stand and how they were measured.

Constants, each read in its source or, where `Source.seen_in` says so, in another place that tells it. They
are for orientation: who measures with examples in the prompt, with reasoning before the answer or with the
vote of several answers does not measure what we do.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Where a figure was published, and where it was read if not there."""

    title: str
    year: int
    where: str
    seen_in: str = ""


@dataclass(frozen=True)
class Figure:
    """A score of another model or person: task and metric as in ours, value from 0 to 1, and how."""

    who: str
    task: str
    metric: str
    value: float
    how: str
    source: Source


PUBMEDQA = Source(
    "PubMedQA: A Dataset for Biomedical Research Question Answering", 2019, "EMNLP-IJCNLP, arXiv 1909.06146"
)
LEADERBOARD = "the leaderboard of PubMedQA's authors, 28 April 2024"
PUBMEDQA_LEADERBOARD = Source(PUBMEDQA.title, PUBMEDQA.year, PUBMEDQA.where, LEADERBOARD)
MEDPROMPT = Source(
    "Can Generalist Foundation Models Outcompete Special-Purpose Tuning? Case Study in Medicine",
    2023,
    "arXiv 2311.16452",
    f"{LEADERBOARD} (PubMedQA); the README of UltraMedical (the others)",
)
MED_PALM_2 = Source(
    "Toward expert-level medical question answering with large language models",
    2025,
    "Nature Medicine 31, 943-950, doi 10.1038/s41591-024-03423-7; arXiv 2305.09617",
)
GPT_4 = Source(
    "Capabilities of GPT-4 on Medical Challenge Problems",
    2023,
    "arXiv 2303.13375",
    "table 1 of the paper on Med-PaLM 2",
)
MEDITRON = Source(
    "MEDITRON-70B: Scaling Medical Pretraining for Large Language Models",
    2023,
    "arXiv 2311.16079",
    LEADERBOARD,
)
PMC_LLAMA = Source(
    "PMC-LLaMA: Towards Building Open-source Language Models for Medicine",
    2023,
    "arXiv 2304.14454",
    "the README of its authors' repository",
)
BIOMISTRAL = Source(
    "BioMistral: A Collection of Open-Source Pretrained Large Language Models for Medical Domains",
    2024,
    "ACL, arXiv 2402.10373",
    "the model card of its authors",
)
MIRAGE = Source(
    "Benchmarking Retrieval-Augmented Generation for Medicine",
    2024,
    "ACL Findings, arXiv 2402.13178",
    "the leaderboard of its authors",
)

_TEST = "its 500 test questions"
_PROMPT = "examples chosen for each question, written reasoning, vote over shuffled choices"
_BEST = "the best of several ways of prompting"
_FIVE = "five examples in the prompt"
_TUNED = "fine-tuned on the benchmark"
_SEEDS = f"{_TUNED}, three examples, mean of three seeds"
_COT = "no examples; written reasoning, then the answer"
_NO_ABSTRACT = f"{_TEST}; {_COT}"
_NO_SNIPPETS = f"618 questions of 2019 to 2023 without their snippets; {_COT}"


def _accuracy(who: str, task: str, percent: float, how: str, source: Source) -> Figure:
    return Figure(who, task, "accuracy", round(percent / 100, 4), how, source)


def _mirage(who: str, scores: tuple[float, float, float, float, float]) -> list[Figure]:
    """A row of the leaderboard, without retrieval: MMLU-Med, MedQA, MedMCQA, PubMedQA*, BioASQ-Y/N."""
    tasks = (
        ("mmlu", f"1,089 questions of six subjects; {_COT}"),
        ("medqa", f"1,273 questions; {_COT}"),
        ("medmcqa", f"4,183 questions, dev split; {_COT}"),
        ("pubmedqa_question_only", _NO_ABSTRACT),
        ("bioasq_yesno", _NO_SNIPPETS),
    )
    return [
        _accuracy(who, task, percent, how, MIRAGE) for (task, how), percent in zip(tasks, scores, strict=True)
    ]


_REASONING = "pubmedqa_reasoning_required"
PUBLISHED = (
    _accuracy("GPT-4 with MedPrompt", _REASONING, 82.0, f"{_TEST}; {_PROMPT}", MEDPROMPT),
    _accuracy("Med-PaLM 2", _REASONING, 81.8, f"{_TEST}; vote of 11 answers", MED_PALM_2),
    _accuracy("MEDITRON-70B", _REASONING, 81.6, f"{_TEST}; as its authors report it", MEDITRON),
    _accuracy("GPT-4-base", _REASONING, 80.4, f"{_TEST}; {_FIVE}", GPT_4),
    _accuracy("one person", _REASONING, 78.0, f"{_TEST}; without the conclusion", PUBMEDQA_LEADERBOARD),
    Figure("one person", _REASONING, "macro_f1", 0.722, f"{_TEST}; the same", PUBMEDQA_LEADERBOARD),
    _accuracy("PMC-LLaMA-13B", _REASONING, 77.9, "tuned on instructions; split not told", PMC_LLAMA),
    _accuracy("BioMistral 7B", _REASONING, 77.5, _SEEDS, BIOMISTRAL),
    _accuracy("GPT-4", _REASONING, 75.2, f"{_TEST}; {_FIVE}", GPT_4),
    _accuracy("BioBERT", _REASONING, 68.1, f"{_TEST}; fine-tuned in phases", PUBMEDQA),
    Figure("BioBERT", _REASONING, "macro_f1", 0.527, f"{_TEST}; fine-tuned in phases", PUBMEDQA_LEADERBOARD),
    _accuracy("most frequent answer", _REASONING, 55.2, _TEST, PUBMEDQA),
    _accuracy("GPT-4 with MedPrompt", "medqa", 90.2, f"four options; {_PROMPT}", MEDPROMPT),
    _accuracy("Med-PaLM 2", "medqa", 86.5, f"{_BEST}; {_TUNED}", MED_PALM_2),
    _accuracy("GPT-4", "medqa", 81.4, _FIVE, GPT_4),
    _accuracy("PMC-LLaMA-13B", "medqa", 56.36, "tuned on instructions; options not told", PMC_LLAMA),
    _accuracy(
        "BioMistral 7B",
        "medqa",
        50.6,
        f"four options; {_TUNED}, three examples, mean of three seeds",
        BIOMISTRAL,
    ),
    _accuracy("GPT-4 with MedPrompt", "medmcqa", 79.1, f"dev split; {_PROMPT}", MEDPROMPT),
    _accuracy("GPT-4", "medmcqa", 72.4, _FIVE, GPT_4),
    _accuracy("Med-PaLM 2", "medmcqa", 72.3, _BEST, MED_PALM_2),
    _accuracy("PMC-LLaMA-13B", "medmcqa", 56.04, "tuned on instructions; split not told", PMC_LLAMA),
    _accuracy("BioMistral 7B", "medmcqa", 48.1, _SEEDS, BIOMISTRAL),
    *_mirage("GPT-4", (89.44, 83.97, 69.88, 39.60, 84.30)),
    *_mirage("Llama-3-70B", (85.77, 80.91, 70.93, 59.00, 83.01)),
    *_mirage("MEDITRON-70B", (64.92, 51.69, 46.74, 53.40, 68.45)),
    *_mirage("PMC-LLaMA-13B", (52.16, 44.38, 46.55, 55.80, 63.11)),
)
# Read in the abstract of the paper alone, which tells no number.
CLAIM = (
    "The paper this platform follows (Xiao et al. 2025, arXiv 2504.19565) says that its Llama3-70B passes "
    "GPT-4 with MedPrompt and Med-PaLM 2 on biomedical questions. Its number could not be checked and is not "
    "in the table."
)
