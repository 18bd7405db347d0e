"""The dataset card of a release, README.md as Hugging Face reads it: figures of its run, and none of another.

The prose stands in `card.md.jinja`. Whatever a value holds, a model's name or a question, is shown as text:
it breaks no table and begins no heading.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from mkailin_assets.corpus.tables import SPLITS, STAGES, TrainingExample
from mkailin_assets.partitions import MESH_BRANCH_NAMES
from mkailin_assets.release.facts import Form, LengthFacts, ModelUse, ReleaseFacts
from mkailin_assets.release.forms import configs_of, schema_of
from mkailin_assets.release.gathering import COPIED
from mkailin_assets.release.notice import COURTESY, NOT_CLINICAL, file_ranges, is_cc_by, taken_back_until
from mkailin_resources.models.prompting import visible

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATE = Path(__file__).parent / "card.md.jinja"
_SPECIAL = re.compile(r"[\\`*_{}\[\]<>|~$&]")
# A backslash before another mark would begin the mathematics that the Hub shows, and braces look like a gap
# that a template left.
_ENTITIES = {"\\": "&#92;", "{": "&#123;", "}": "&#125;"}
_URL = re.compile(r"https?://[^\s<>|\"`]+")
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
_CHARACTERS = 800  # of a text of an example
_REASONS = 20  # of a stage
_EXTRACTIVE, _RULES = "extractive-", "rules-"  # names of agents, versions of what they go by
# Columns of a release that are none of `TrainingExample`.
_DESCRIPTIONS = {
    "answer_parts": "The answer in parts, in order: our own text, or start and length of a quotation in the "
    "text to pre-train on that rehydrate builds",
    "text": str(TrainingExample.columns()["pretraining_text"].description),
}
_KEPT_OUT_BY = {
    "evaluation": "quality",
    "source": "retractions and revisions",
    "contamination": "benchmarks",
    "duplicate": "duplicates",
    "balance": "balance",
}


def card(facts: ReleaseFacts, examples: Sequence[Mapping[str, Any]] = ()) -> str:
    """README.md of a release; `examples` are rows of its config instruction that it shows.

    Of the form "pmids" nothing is shown that a citation says. Raises `ValueError` or Jinja's `UndefinedError`
    rather than leave a gap.
    """
    text = _template().render(
        facts=facts,
        splits=splits_of(facts),
        configs=configs_of(facts.form),
        license_id="cc-by-4.0" if is_cc_by(facts) else "other",
        size=next((size for limit, size in _SIZES if facts.rows < limit), "10M<n<100M"),
        pretty_name=_Markdown(json.dumps(visible(facts.name), ensure_ascii=False)),
        not_clinical=NOT_CLINICAL,
        courtesy=COURTESY,
        taken_back_until=taken_back_until(facts),
        file_ranges=", ".join(file_ranges(facts)),
        summary=summary(facts),
        limits=limits(facts),
        packages=", ".join(f"{name} {version}" for name, version in facts.packages.items()),
        columns={config: _columns(config, facts.form) for config in configs_of(facts.form)},
        exceptions=list(
            dict.fromkeys(
                (model.name, f"{model.licence}: {model.condition}", model.exception)
                for model in facts.models
                if model.exception
            )
        ),
        examples=[_example(row, facts.form) for row in examples],
        table=_tables(facts),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def splits_of(facts: ReleaseFacts) -> list[str]:
    """The splits that have rows, and so have files."""
    return [split for split in SPLITS if facts.by_split.get(split)]


def summary(facts: ReleaseFacts) -> str:
    """What the release is, in two sentences."""
    return (
        f"{counted(facts.rows, 'question')} about the biomedical literature, each with an answer, a decision "
        "(yes, no or maybe) where one can be read, the PubMed citations that both rest on, and measurements "
        f"of their quality. Made by m-KAILIN from {counted(facts.citations, 'citation')} of PubMed, with "
        f"{facts.context_citations:,} shown as contexts, guided by the Medical Subject Headings (MeSH) of "
        f"{facts.mesh_year}."
    )


def limits(facts: ReleaseFacts) -> list[str]:
    """What is known to be weak about the release, a sentence or two each."""
    writers = [model for model in facts.models if model.wrote]
    by_rules = {model.role for model in writers if model.name.startswith(_EXTRACTIVE)}
    by_models = {model.role for model in writers if not model.name.startswith(_EXTRACTIVE)}
    found = [
        "Questions and answers were written and checked by software. No person has read every row.",
        f"In {facts.copied_answers:,} of {counted(facts.rows, 'row')} the answer is a quotation: at least "
        f"{COPIED:.0%} of its words are copied from its citations (copied_share).",
    ]
    if by_rules:
        found.append(
            "Extractive agents turn a title or a conclusion into a question, and answer with the conclusion "
            "of the abstract as its authors wrote it: they explain nothing beyond it."
        )
    if "answer" in by_rules:
        found.append("The decision of an extractive answer is read off its wording by rules, which err.")
    if "answer" in by_models:
        found.append(
            "What a language model answers is held to the sentences that it was shown, which does not make "
            "it true; its decision is its own judgement."
        )
    return [
        *found,
        "Answers rest on abstracts, not on full texts. What is wrong, exaggerated or outdated in an abstract "
        "is so here.",
        "Only citations with an abstract and MeSH headings are in it, and PubMed's abstracts are in English. "
        "It is not spread over medicine as practice is.",
        "Benchmarks are recognised by PMIDs, by questions and by words in a row; a paraphrase is not."
        if facts.benchmarks
        else "It was not cleaned of any benchmark, since none was named.",
        "Signals are measured by rules and small models, toxicity and personal data too, and err.",
    ]


def column_descriptions(config: str, form: Form) -> dict[str, str]:
    """What each column of a config holds, as the schema of the corpus says it."""
    columns = TrainingExample.columns()
    return {
        name: str(columns[name].description if name in columns else _DESCRIPTIONS[name])
        for name in schema_of(config, form)
    }


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 row`, `2,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@cache
def _template() -> "Template":
    # Jinja2 takes a tenth of a second to import; what only verifies a release need not wait for it.
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"counted": counted, "share": _share, "url": _url, "code": _code}
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


class _Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def _shown(value: object) -> str:
    """A value as the card prints it; raises `ValueError` where there is none."""
    if isinstance(value, _Markdown):
        return value
    if value is None:
        raise ValueError("the dataset card has no value for something that it says")
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return _SPECIAL.sub(lambda mark: _ENTITIES.get(mark[0], f"\\{mark[0]}"), visible(str(value)))


def _code(value: str) -> _Markdown:
    """A text inside a fence of code."""
    return _Markdown(visible(value).replace("`", "'"))


def _url(address: str | None, text: str) -> str:
    """The text as a link, if there is an address to link to."""
    if address and _URL.fullmatch(address):
        return _Markdown(f"[{_shown(text)}](<{address}>)")
    return text


def _share(part: int, whole: int) -> str:
    share = part / whole if whole else 0.0
    return f"{share:.1%}" if share >= 0.001 or not part else "less than 0.1%"


def _table(header: str, rows: Iterable[Sequence[object]]) -> _Markdown:
    """A table of Markdown under a header "name, name, ...", numbers to the right; empty without rows."""
    cells = list(rows)
    if not cells:
        return _Markdown("")
    names = header.split(", ")
    are_numbers = [all(isinstance(row[place], int | float) for row in cells) for place in range(len(names))]
    lines = [names, ["---:" if is_number else "---" for is_number in are_numbers]]
    lines += [[_shown(cell) for cell in row] for row in cells]
    return _Markdown("".join(f"| {' | '.join(line)} |\n" for line in lines))


def _tables(facts: ReleaseFacts) -> dict[str, _Markdown]:
    """All tables of the card by name; empty where there is nothing to say."""
    columns = TrainingExample.columns()
    described = {name: str(columns[name].description) for name in facts.signals if name in columns}
    splits = {split: facts.by_split.get(split, 0) for split in SPLITS}
    asked = [(model.prompt_version, model.prompt_sha256) for model in facts.models]
    prompts = {version: digest for version, digest in asked if version and not version.startswith(_RULES)}
    return {
        "splits": _table("split, rows, share", _shares(splits, facts.rows)),
        "decisions": _table("decision, rows, share", _shares(facts.by_decision, facts.rows)),
        "branches": _table(
            "branch, name, rows, share",
            [
                (branch, MESH_BRANCH_NAMES.get(branch, ""), *shared)
                for branch, *shared in _shares(facts.by_branch, facts.rows)
            ],
        ),
        "signals": _table(
            "signal, what it is, rows, mean, 10%, median, 90%",
            [
                (name, described.get(name, ""), one.rows, one.mean, one.low, one.median, one.high)
                for name, one in facts.signals.items()
            ],
        ),
        "lengths": _table(
            "texts, tokenizer, examples, tokens, longest, sequence, sequences when packed",
            [
                (one.form, one.tokenizer, one.examples, one.tokens, one.longest, *_packed(one))
                for one in facts.lengths
            ],
        ),
        "excluded": _table("kept out by, reason, pairs", _excluded(facts)),
        "benchmarks": _table(
            "benchmark, items, pairs removed, SHA-256 of the file",
            [
                (_url(one.file.url, one.file.name), one.items, one.removed, one.file.digest)
                for one in facts.benchmarks
            ],
        ),
        "models": _table(
            "model or agent, revision, what it did, rows, prompt, licence, may train others",
            map(_used, facts.models),
        ),
        "terms": _table(
            "model or agent, licence, what it says of outputs, read in",
            dict.fromkeys((one.name, one.licence, one.condition, _source(one)) for one in facts.models),
        ),
        "prompts": _table(
            "prompt, SHA-256 of its file",
            [(name, digest or "not a prompt of this version") for name, digest in prompts.items()],
        ),
        "rules": _table(
            "of, rule, value",
            [(room, *rule) for room, rules in facts.rules.items() for rule in _values(rules)],
        ),
        "settings": _table("setting, value", _values(facts.settings)),
        "seeds": _table("seed, value", _values(facts.seeds)),
    }


def _columns(config: str, form: Form) -> _Markdown:
    """The columns of a config, as its schema describes them."""
    kinds = schema_of(config, form)
    return _table(
        "column, type, what it holds",
        [
            (_Markdown(f"`{name}`"), _Markdown(f"`{kinds[name]}`"), described)
            for name, described in column_descriptions(config, form).items()
        ],
    )


def _shares(counts: Mapping[str, int], whole: int) -> list[tuple[str, int, str]]:
    return [(name, count, _share(count, whole)) for name, count in counts.items()]


def _values(named: Mapping[str, JsonValue] | Mapping[str, int]) -> list[tuple[str, str]]:
    return [(name, json.dumps(value, ensure_ascii=False)) for name, value in named.items()]


def _packed(texts: LengthFacts) -> tuple[int, int]:
    return texts.sequence_length, texts.sequences


def _excluded(facts: ReleaseFacts) -> list[tuple[str, str, int]]:
    """Stage, reason and rows: the most frequent reasons of each stage, and the others together."""
    rows = []
    for stage in sorted(facts.excluded, key=[*STAGES, *facts.excluded].index):
        name, reasons = _KEPT_OUT_BY.get(stage, stage), list(facts.excluded[stage].items())
        rows += [(name, reason, count) for reason, count in reasons[:_REASONS]]
        if rest := reasons[_REASONS:]:
            rows.append((name, counted(len(rest), "other reason"), sum(count for _, count in rest)))
    return rows


def _used(model: ModelUse) -> tuple[object, ...]:
    name, _, revision = model.name.partition("@")
    done = f"{'wrote' if model.wrote else 'judged'} {model.role}s"
    asked = (revision or "none stated", done, model.rows, model.prompt_version or "none")
    return (name, *asked, model.licence, model.may_train)


def _source(model: ModelUse) -> str:
    """Where the licence is written; that of the agents is the software's, and not the release's."""
    if model.source == "LICENSE":
        return "the LICENSE of m-KAILIN"
    return _url(model.source, model.source or "not read; ask the publisher of the model")


def _example(row: Mapping[str, Any], form: Form) -> dict[str, Any]:
    """A row as the card shows it: without the texts of citations, the answer's own words only."""
    if form == "full":
        answer = row["long_answer"]
    else:
        answer = "".join(
            f"[{part['length']} characters of the abstract]" if part["text"] is None else part["text"]
            for part in row["answer_parts"]
        )
    names = ("pmid", "generator", "answerer")
    texts = {"question": row["question"], "answer": answer, "decision": row["decision"] or "none"}
    return {**{name: row[name] for name in names}, **{name: _cut(text) for name, text in texts.items()}}


def _cut(text: str) -> str:
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]} [...]"
