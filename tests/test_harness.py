"""What models answer through lm-evaluation-harness: prompts, rows, and that nothing is asked twice."""

import io
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from asking import Writer, unpaid
from tiny_corpus import training_examples

from mkailin_assets.corpus.tables import DECISIONS
from mkailin_assets.evaluation import answers as module
from mkailin_assets.evaluation.answers import Answers, answers_of
from mkailin_assets.evaluation.contestants import Contestant
from mkailin_assets.evaluation.harness import (
    NOT_READ,
    SAID,
    Task,
    _Watching,
    ask,
    on_transformers,
    task_settings,
    tasks_of,
)
from mkailin_assets.evaluation.items import ITEMS, corpus_items, measured_items
from mkailin_assets.evaluation.predict import predict_with_generator
from mkailin_assets.evaluation.rules import EvaluationRules
from mkailin_assets.evaluation.tables import BenchmarkAnswer
from mkailin_assets.trainer import OutOfMemory
from mkailin_assets.training.checkpoints import load
from mkailin_assets.training.tokenizer import train_tokenizer
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.models.interface import Answer, GenerationRequest, GenerationResult
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.storage import Storage

WINDOW = 256
SUBSTANCES = ("amarin", "belosol", "corvane")
RULES = EvaluationRules(batch_size=4)
ANSWERED = Answer(long_answer="It does.", decision="yes", evidence=["It does."])


def pubmedqa(questions: int = 3, context: str = "We gave {} or placebo to 40 patients.") -> pl.DataFrame:
    rows = [
        {
            "benchmark": "pqa",
            "kind": "pubmedqa",
            "item": str(101 + place),
            "question": f"Does {substance} relieve pain?",
            "options": ["yes", "no", "maybe"],
            "context": [context.format(substance), "Pain did not differ."],
            "labels": ["METHODS", "RESULTS"],
            "gold": gold,
            "pmid": 101 + place,
        }
        for place, (substance, gold) in enumerate(zip(SUBSTANCES, ("no", "yes", "maybe"), strict=True))
    ]
    return pl.DataFrame(rows[:questions], schema=ITEMS).with_columns(pl.col(pl.List).fill_null([]))


def letters(kind: str = "medqa", subject: str | None = None) -> pl.DataFrame:
    rows = [
        {
            "benchmark": f"the {kind}",
            "kind": kind,
            "item": str(place),
            "subject": subject,
            "question": f"  Which substance is number {place}? ",
            "options": ["amarin", "belosol ", "", "none, or 4"],
            "context": [],
            "gold": "ABCD"[place],
        }
        for place in range(3)
    ]
    return pl.DataFrame(rows, schema=ITEMS)


def bioasq() -> pl.DataFrame:
    rows = pubmedqa(2).with_columns(benchmark=pl.lit("asq"), kind=pl.lit("bioasq"))
    return rows.with_columns(context=pl.when(pl.col("item") == "101").then("context").otherwise([]))


def held_out(rows: int = 3) -> pl.DataFrame:
    return corpus_items(training_examples(4, 2, rows).lazy(), most=rows)


def task_of(items: pl.DataFrame, name: str, form: str = "likelihood", chat_template: bool = False) -> Task:
    tasks = tasks_of(items, ("likelihood", "generation"), chat_template)
    return next(task for task in tasks if (task.name, task.form) == (name, form))


@pytest.fixture(scope="module")
def contestant(tmp_path_factory: pytest.TempPathFactory) -> Contestant:
    """A Llama of random weights, sure of what it says, with a tokenizer that splits "maybe"."""
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    folder = tmp_path_factory.mktemp("model")
    texts = training_examples()["messages"].explode(empty_as_null=False).struct.field("content")
    tokenizer = train_tokenizer(texts, 330)
    set_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=WINDOW,
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert len(tokenizer("maybe")["input_ids"]) > 1
    return Contestant("base", ModelName(str(folder)), folder, "f00d", "70ce")


@pytest.fixture(scope="module")
def lm(contestant: Contestant) -> Iterator[Any]:
    with on_transformers(lambda: load(contestant.model, contestant.tokenizer), 4) as lm:
        yield lm


def by_hand(lm: Any, prompt: str, said: str) -> float:
    """Log-likelihood of a text after another, in nats, each token by a call of its own."""
    import torch

    tokens = lm.tokenizer(prompt + said)["input_ids"]
    first = len(lm.tokenizer(prompt)["input_ids"])
    total = 0.0
    for place in range(first, len(tokens)):
        with torch.inference_mode():
            logits = lm.model(torch.tensor([tokens[:place]])).logits[0, -1]
        total += logits.double().log_softmax(-1)[tokens[place]].item()
    return total


def likeliest(likelihoods: dict[str, float]) -> str:
    return max(likelihoods, key=likelihoods.__getitem__)


# Prompts


STOCK = {
    "pubmedqa_reasoning_required": "pubmedqa/pubmedqa.yaml",
    "medqa": "medqa/medqa.yaml",
    "medmcqa": "medmcqa/medmcqa.yaml",
    "mmlu_anatomy": "mmlu/default/mmlu_anatomy.yaml",
    "mmlu_clinical_knowledge": "mmlu/default/mmlu_clinical_knowledge.yaml",
    "mmlu_college_biology": "mmlu/default/mmlu_college_biology.yaml",
    "mmlu_college_medicine": "mmlu/default/mmlu_college_medicine.yaml",
    "mmlu_medical_genetics": "mmlu/default/mmlu_medical_genetics.yaml",
    "mmlu_professional_medicine": "mmlu/default/mmlu_professional_medicine.yaml",
}


def as_stock(row: dict[str, Any]) -> dict[str, Any]:
    """An item as the data sets on the Hub have it that lm-evaluation-harness' own tasks read."""
    place = "ABCD".find(row["gold"])
    match row["kind"]:
        case "pubmedqa":
            return {
                "QUESTION": row["question"],
                "CONTEXTS": row["context"],
                "final_decision": row["gold"],
            }
        case "medqa":
            endings = {f"ending{number}": text for number, text in enumerate(row["options"])}
            return {"sent1": row["question"], "label": place, **endings}
        case "medmcqa":
            options = dict(zip(("opa", "opb", "opc", "opd"), row["options"], strict=True))
            return {"question": row["question"], "cop": place, **options}
        case _:
            return {"question": row["question"], "choices": row["options"], "answer": place}


def requests_of(settings: dict[str, Any], docs: Sequence[dict[str, Any]], **chat: Any) -> list[Any]:
    """All that a task of lm-evaluation-harness asks about documents, and the right answers."""
    from datasets import Dataset
    from lm_eval.tasks import TaskManager

    local = {"task": "it", "custom_dataset": lambda **_: {"test": Dataset.from_list(docs)}}
    local |= {"training_split": None, "validation_split": None, "test_split": "test", "fewshot_split": None}
    task = TaskManager(include_defaults=False).load({**settings, **local})["tasks"]["it"]
    task.build_all_requests(rank=0, world_size=1, **chat)
    golds = [task.doc_to_target(doc) for doc in task.eval_docs]
    choices = [task.doc_to_choice(doc) for doc in task.eval_docs]
    right = [
        choice[gold] if isinstance(gold, int) else gold for gold, choice in zip(golds, choices, strict=True)
    ]
    return [[instance.args for instance in task.instances], right]


def all_kinds() -> pl.DataFrame:
    subjects = [name.removeprefix("mmlu_") for name in STOCK if name.startswith("mmlu")]
    mmlu = [letters("mmlu", subject).with_columns(benchmark=pl.lit(subject)) for subject in subjects]
    return pl.concat([pubmedqa(), letters("medqa"), letters("medmcqa"), *mmlu, bioasq()])


def is_asked_as_stock(items: pl.DataFrame) -> list[str]:
    import lm_eval
    from lm_eval.tasks._yaml_loader import load_yaml

    seen = []
    with redirect_stderr(io.StringIO()):
        for task in tasks_of(items, ("likelihood",), chat_template=False):
            if task.name in STOCK:
                settings = load_yaml(Path(lm_eval.__file__).parent / "tasks" / STOCK[task.name])
                stock = requests_of(settings, [as_stock(row) for row in task.items.to_dicts()])
                ours = requests_of(task_settings()[task.settings], task.items.to_dicts())
                assert ours == stock, task.name
                seen.append(task.name)
    return seen


def test_what_is_shown_is_what_the_harness_own_tasks_show() -> None:
    assert is_asked_as_stock(all_kinds()) == list(STOCK)


def test_real_items_are_shown_as_the_harness_own_tasks_show_them(real_data: Path) -> None:
    path = str(real_data / "pubmedqa" / "pqal_dev500.json")
    items = measured_items(BenchmarkFiles(pubmedqa=path, others=[str(real_data / "benchmarks")])).table
    assert sorted(is_asked_as_stock(items.gather_every(20))) == sorted(STOCK)


def prompts(items: pl.DataFrame, name: str, form: str = "likelihood") -> list[str]:
    task = task_of(items, name, form)
    with redirect_stderr(io.StringIO()):
        asked, _ = requests_of(task_settings()[task.settings], task.items.to_dicts())
    return list(dict.fromkeys(arguments[0] for arguments in asked))


def test_without_the_abstract_the_question_is_the_same() -> None:
    whole = prompts(pubmedqa(), "pubmedqa_reasoning_required")
    assert prompts(pubmedqa(), "pubmedqa_question_only") == [text[text.index("Question") :] for text in whole]


def test_a_question_of_bioasq_is_shown_with_its_snippets_where_it_has_any() -> None:
    assert prompts(bioasq(), "bioasq_yesno") == [
        "Context: We gave amarin or placebo to 40 patients.\nPain did not differ.\n"
        "Question: Does amarin relieve pain?\nAnswer:",
        "Question: Does belosol relieve pain?\nAnswer:",
    ]


@pytest.mark.parametrize("name", ["pubmedqa_reasoning_required", "medqa", "medmcqa", "mmlu_anatomy"])
def test_who_is_to_write_is_shown_the_same(name: str) -> None:
    items = all_kinds()
    settings = [task_settings()[task_of(items, name, form).settings] for form in ("likelihood", "generation")]
    for what in ("doc_to_text", "description", "doc_to_target"):
        assert len({str(setting.get(what)) for setting in settings}) == 1


@pytest.mark.parametrize("name", ["corpus_decision", "corpus_answer"])
def test_the_corpus_is_asked_as_it_is_trained(name: str) -> None:
    from lm_eval.utils import apply_template

    examples = training_examples(0, 0, 4)
    if name == "corpus_answer":  # with questions that ask for no decision among them
        from mkailin_assets.corpus.texts import example_texts

        told = {"title": "Pain", "source_context": "We gave it.", "source_conclusion": None, "contexts": []}
        given = [
            told | {"question": row["question"], "long_answer": row["long_answer"], "decision": decision}
            for row, decision in zip(examples.to_dicts(), (None, "no", None, "yes"), strict=True)
        ]
        contexts = pl.List(pl.Struct({"title": pl.String, "text": pl.String}))
        written = example_texts(pl.DataFrame(given, schema_overrides={"contexts": contexts}), 1000)
        names = ("context", "pretraining_text", "messages", "decision")
        examples = examples.with_columns(written[column] for column in names)
    items = corpus_items(examples.lazy(), most=4)
    settings = task_settings()[name]
    for item, example in zip(items.to_dicts(), examples.to_dicts(), strict=True):
        user, assistant = example["messages"]
        assert apply_template(settings["doc_to_text"], item) == user["content"]
        if name == "corpus_answer":
            assert item[settings["doc_to_target"]] == assistant["content"]
        else:
            assert settings["doc_to_choice"] == list(DECISIONS)


# Likelihoods


def test_the_likeliest_choice_is_that_of_the_model_asked_token_by_token(lm: Any) -> None:
    items = pl.concat([pubmedqa(), letters()])
    names = ("pubmedqa_reasoning_required", "pubmedqa_question_only", "medqa")
    chosen = set()
    for name in names:
        task = task_of(items, name)
        said = ask(lm, task)
        choices = task_settings()[task.settings]["doc_to_choice"]
        assert said["item"].to_list() == task.items["item"].to_list()
        for row, prompt in zip(said.to_dicts(), prompts(items, name), strict=True):
            assert row["answer"] == likeliest(
                {choice: by_hand(lm, prompt, f" {choice}") for choice in choices}
            )
            assert row["right"] is (row["answer"] == row["gold"])
            chosen.add(row["answer"])
    assert len(chosen) > 2


def test_texts_are_rated_as_the_model_rates_them_token_by_token(lm: Any) -> None:
    items = held_out()
    answers, texts = (ask(lm, task_of(items, name)) for name in ("corpus_answer", "corpus_text"))
    begin = lm.tokenizer.bos_token
    for item, answer, text in zip(items.to_dicts(), answers.to_dicts(), texts.to_dicts(), strict=True):
        asked = f"Context: {item['context'][0]}\n\nQuestion: {item['question']}\n\n"
        prompt = f"{begin}<|user|>{asked}Answer yes, no or maybe, then explain.<|end|><|assistant|>"
        assert answer["nats"] == pytest.approx(-by_hand(lm, prompt, item["answer"]), rel=1e-5)
        assert answer["utf8_bytes"] == len(item["answer"].encode())
        assert text["nats"] == pytest.approx(-by_hand(lm, begin, item["text"]), rel=1e-5)
        assert text["utf8_bytes"] == len(item["text"].encode())
        assert answer["right"] is answer["gold"] is answer["answer"] is answer["failure"] is None


def test_a_decision_on_the_corpus_is_made_through_the_template_it_was_trained_with(lm: Any) -> None:
    items = held_out()
    said = ask(lm, task_of(items, "corpus_decision"))
    for content, row in zip(prompts(items, "corpus_decision"), said.to_dicts(), strict=True):
        messages = [{"role": "user", "content": content}]
        prompt = lm.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert row["answer"] == likeliest({choice: by_hand(lm, prompt, choice) for choice in DECISIONS})
        assert row["gold"] == "no"


# Prompts that are too long


def test_a_prompt_too_long_loses_its_beginning_and_is_counted(lm: Any) -> None:
    long = pubmedqa(context="{0} " * 200)
    items = pl.concat([long.head(2), pubmedqa().tail(1)])
    for form in ("likelihood", "generation"):
        said = ask(lm, task_of(items, "pubmedqa_reasoning_required", form))
        assert said["cut"].to_list() == [True, True, False]
    row = ask(lm, task_of(items, "pubmedqa_reasoning_required")).row(0, named=True)
    tokens = lm.tokenizer(prompts(items, "pubmedqa_reasoning_required")[0])["input_ids"]
    kept = {
        choice: lm.tokenizer.decode(tokens[len(lm.tokenizer(f" {choice}")["input_ids"]) - WINDOW - 1 :])
        for choice in DECISIONS
    }
    assert row["answer"] == likeliest({choice: by_hand(lm, kept[choice], f" {choice}") for choice in kept})


def test_of_the_corpus_a_prompt_too_long_loses_the_end_of_its_context(lm: Any) -> None:
    words = " ".join(f"word{place}" for place in range(300))
    items = held_out(2).with_columns(context=pl.concat_list(pl.lit("The source. " + words)))
    asked: list[tuple[str, str]] = []
    rate = lm.loglikelihood
    lm.loglikelihood = lambda requests: asked.extend(it.args for it in requests) or rate(requests)
    try:
        said = {name: ask(lm, task_of(items, name)) for name in ("corpus_decision", "corpus_answer")}
    finally:
        del lm.loglikelihood
    assert all(part["cut"].all() for part in said.values())
    assert len(asked) == 2 * 3 + 2
    for prompt, answer in asked:
        assert prompt.startswith("<|begin|><|user|>Context: The source. word0 word1 ")
        assert items["question"][0 if "amarin" in prompt else 1] in prompt
        assert WINDOW - 10 < len(lm.tok_encode(prompt + answer)) <= WINDOW + 1


def test_an_answer_longer_than_the_model_takes_fails_alone(lm: Any) -> None:
    items = held_out(3)
    answer = pl.when(pl.col("item") == items["item"][1]).then(pl.lit("no. " + "9 " * 400)).otherwise("answer")
    said = ask(lm, task_of(items.with_columns(answer=answer), "corpus_answer"))
    assert said["nats"].is_null().to_list() == [False, True, False]
    assert "tokens, more than the 256 that the model takes" in str(said["failure"][1])
    whole = ask(lm, task_of(items, "corpus_answer"))
    assert said.filter(pl.col("failure").is_null()).equals(whole.gather([0, 2]))


def test_a_text_longer_than_the_model_takes_is_read_in_windows(lm: Any) -> None:
    items = held_out(2).with_columns(text=pl.lit("Pain and fever. " * 200))
    said = ask(lm, task_of(items, "corpus_text"))
    assert said["failure"].null_count() == 2
    assert not said["cut"].any()
    assert said["utf8_bytes"].to_list() == [3200, 3200]


# Written answers


def scripted(texts: Sequence[str] | BaseException, asked: list[Any] | None = None) -> Any:
    """A model that writes these texts in turn, or raises, and rates every text as likely as the next."""
    from lm_eval.api.model import LM

    class Scripted(LM):
        max_length = 10_000
        tokenizer_name = "it"
        tokenizer = type("Tokenizer", (), {"chat_template": "a template"})()

        def generate_until(self, requests: list[Any]) -> list[str]:
            if isinstance(texts, BaseException):
                raise texts
            if asked is not None:
                asked.extend(request.args for request in requests)
            return list(itertools.islice(itertools.cycle(texts), len(requests)))

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            return [(float("nan"), False) for _ in requests]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            return [float("nan") for _ in requests]

        def tok_encode(self, text: str) -> list[str]:
            return text.split()

        def apply_chat_template(
            self, messages: list[dict[str, str]], add_generation_prompt: bool = True
        ) -> str:
            return "|".join(f"{message['role']}: {message['content']}" for message in messages)

    return type("Watching", (_Watching, Scripted), {})()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("yes", "yes"),
        (" No.", "no"),
        ("Maybe, since", "maybe"),
        ("\n**YES**\nIt does.", "yes"),
        ("The answer is: no", "no"),
        ("Based on the abstract, the answer is **maybe**.", "maybe"),
        ("Answer: yes", "yes"),
        ("Nothing was found", None),
        ("It did not say yes", None),
        ("", None),
    ],
)
def test_a_decision_is_read_where_one_stands(written: str, read: str | None) -> None:
    [row] = ask(scripted([written]), task_of(pubmedqa(1), "pubmedqa_question_only", "generation")).to_dicts()
    assert (row["answer"], row["written"], row["right"]) == (read, written, read == "no")
    assert row["failure"] == (None if read else NOT_READ)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("B", "B"),
        (" (B)", "B"),
        ("B. Belosol", "B"),
        ("**C**", "C"),
        ("D\nsince", "D"),
        ("The answer is B because", "B"),
        ("The correct answer is option (D).", "D"),
        ("Answer: A", "A"),
        ("A patient with pain", None),
        ("Belosol", None),
        ("I think C", None),
        ("E", None),
    ],
)
def test_a_letter_is_read_where_one_stands_alone(written: str, read: str | None) -> None:
    row = ask(scripted([written]), task_of(letters(), "medqa", "generation")).row(0, named=True)
    assert (row["answer"], row["right"]) == (read, read == "A")


def test_a_model_that_writes_is_asked_through_its_template_where_that_is_wanted() -> None:
    asked: list[Any] = []
    items = letters("mmlu", "anatomy")
    for chat_template in (False, True):
        ask(scripted(["A"], asked), task_of(items, "mmlu_anatomy", "generation", chat_template))
    (bare, how), *_, (through, _), _, _ = asked
    assert bare.startswith(
        "The following are multiple choice questions (with answers) about anatomy.\n\nWhich"
    )
    assert through.startswith("system: The following")
    assert "|user: Which" in through
    assert how["do_sample"] is False
    assert how["max_gen_toks"] == 32


def test_a_likelihood_that_is_no_number_is_no_answer() -> None:
    items = pl.concat([pubmedqa(), held_out()])
    for name in ("pubmedqa_question_only", "corpus_text"):
        said = ask(scripted([]), task_of(items, name))
        assert said["failure"].str.contains("not a number").all()
        assert said["answer"].null_count() == said["nats"].null_count() == 3


def test_a_want_of_memory_says_what_to_set() -> None:
    import torch

    model = scripted(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(
        OutOfMemory, match=r"pqa, pubmedqa_question_only, generation: CUDA out.*batch_size in MKA"
    ):
        ask(model, task_of(pubmedqa(), "pubmedqa_question_only", "generation"))


# All of it, and once


@contextmanager
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many sequences models of transformers are given while the block runs."""
    from transformers import LlamaForCausalLM

    given: list[int] = []
    forward = LlamaForCausalLM.forward

    def counted(self: Any, input_ids: Any = None, **how: Any) -> Any:
        given.append(len(input_ids))
        return forward(self, input_ids, **how)

    with monkeypatch.context() as patch:
        patch.setattr(LlamaForCausalLM, "forward", counted)
        yield given


@pytest.fixture(scope="module")
def everything() -> pl.DataFrame:
    return pl.concat([pubmedqa(), letters(), letters("mmlu", "anatomy"), bioasq(), held_out()])


def answered(
    contestant: Contestant, items: pl.DataFrame, root: Path, said: list[str], rules: EvaluationRules = RULES
) -> Answers:
    return answers_of(contestant, items, Storage(root=str(root)), rules=rules, vllm={}, log=said.append)


@pytest.fixture(scope="module")
def first(
    contestant: Contestant, everything: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Answers, Path, list[str], str]:
    root, said = tmp_path_factory.mktemp("storage"), []
    with redirect_stderr(io.StringIO()) as stderr:
        found = answered(contestant, everything, root, said)
    return found, root, said, stderr.getvalue()


def test_every_item_has_a_row_for_each_task_and_form(
    first: tuple[Answers, Path, list[str], str], everything: pl.DataFrame
) -> None:
    table = BenchmarkAnswer.validate(first[0].table)
    both = [("likelihood", 3), ("generation", 3)]
    assert table.group_by("task", "form", maintain_order=True).len().rows() == [
        *(("pubmedqa_reasoning_required", *it) for it in both),
        *(("pubmedqa_question_only", *it) for it in both),
        *(("medqa", *it) for it in both),
        *(("mmlu_anatomy", *it) for it in both),
        ("bioasq_yesno", "likelihood", 2),
        ("bioasq_yesno", "generation", 2),
        *((f"corpus_{name}", "likelihood", 3) for name in ("decision", "answer", "text")),
    ]
    joined = table.join(everything, on=["benchmark", "item"], validate="m:1")
    assert joined.height == table.height
    assert (joined["gold"] == joined["gold_right"]).drop_nulls().all()
    assert table["model"].unique().to_list() == ["base"]
    assert table["model_fingerprint"].unique().to_list() == ["f00d"]
    assert table["tokenizer_sha256"].unique().to_list() == ["70ce"]
    assert table["task_fingerprint"].n_unique() == first[0].asked == 13
    assert table.filter(form="generation")["written"].null_count() == 0
    assert first[0].cut == {}


def test_the_log_tells_of_each_task_and_nothing_else_is_printed(
    first: tuple[Answers, Path, list[str], str],
) -> None:
    _, _, said, printed = first
    assert printed == ""
    assert len(said) == 13
    assert all("items/s, about" in line for line in said)
    assert said[0].startswith("base: pqa, pubmedqa_reasoning_required, likelihood: 3 items, ")


def test_what_was_asked_is_not_asked_again(
    first: tuple[Answers, Path, list[str], str],
    contestant: Contestant,
    everything: pl.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, root, _, _ = first
    said: list[str] = []
    monkeypatch.setattr(module, "load", lambda *_: pytest.fail("a model was loaded"))
    again = answered(contestant, everything, root, said)
    assert again.table.equals(found.table)
    assert (again.asked, again.reused) == (0, 13)
    assert said == ["base: 13 of 13 tasks were asked before"]


def test_what_changed_is_asked_and_nothing_else(
    first: tuple[Answers, Path, list[str], str],
    contestant: Contestant,
    everything: pl.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = first[1]
    likelihood = EvaluationRules(forms=("likelihood",))
    reworded = pl.when(pl.col("item") == "102").then(pl.lit("Does it?")).otherwise("question")
    changed = everything.with_columns(
        question=pl.when(pl.col("kind") == "pubmedqa").then(reworded).otherwise("question")
    )
    with calls(monkeypatch) as given:
        assert answered(contestant, changed, root, [], likelihood).asked == 2
    # Of each of the 6 prompts one reading for the choices of one token, and one for each of more.
    assert 6 < sum(given) <= 18
    bare = EvaluationRules(forms=("likelihood",), chat_template=False)
    assert answered(contestant, everything, root, [], bare).asked == 5  # the corpus is asked as before
    other = Contestant("finetuned", contestant.model, contestant.tokenizer, "beef", "70ce")
    assert answered(other, held_out(), root, [], likelihood).asked == 3


def test_a_run_that_is_killed_loses_the_task_it_was_at(
    first: tuple[Answers, Path, list[str], str],
    contestant: Contestant,
    everything: pl.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = []

    def killed(lm: Any, task: Task) -> pl.DataFrame:
        begun.append(task.name)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return ask(lm, task)

    rules = EvaluationRules(forms=("likelihood",), batch_size=4)
    with monkeypatch.context() as patch:
        patch.setattr(module, "ask", killed)
        with pytest.raises(KeyboardInterrupt):
            answered(contestant, everything, tmp_path, [], rules)
    kept = sorted((tmp_path / "answers").rglob("*.parquet"))
    assert len(kept) == 2
    kept[0].write_bytes(b"PAR1, cut off")  # by a disk that failed, say
    found = answered(contestant, everything, tmp_path, [], rules)
    assert (found.asked, found.reused) == (7, 1)
    likelihoods = first[0].table.filter(form="likelihood")
    assert found.table.drop("task_fingerprint").equals(likelihoods.drop("task_fingerprint"))


def test_how_many_prompts_were_too_long_is_known_of_kept_answers_too(
    contestant: Contestant, tmp_path: Path
) -> None:
    items, rules = pubmedqa(context="{0} " * 200), EvaluationRules(forms=("likelihood",))
    said: list[str] = []
    for _ in range(2):
        found = answered(contestant, items, tmp_path, said, rules)
        assert found.cut == {"pqa, pubmedqa_reasoning_required, likelihood": 3}
    assert "3 whose prompt was too long" in said[0]


# The text generator


def recorder() -> Writer:
    """Answers with and without a decision and with no answer, in turn, where it is shown an abstract."""
    undecided = ANSWERED.model_copy(update={"decision": None})
    texts = [ANSWERED.model_dump_json(), undecided.model_dump_json(), "no JSON"]

    def write(request: GenerationRequest) -> GenerationResult:
        if not request.document.sections:
            return GenerationResult(request.key, failure="there is no abstract")
        return GenerationResult(request.key, text=texts[int(request.key) - 101])

    return Writer(write)


def test_what_a_generator_leaves_open_is_no_answer_and_wrong() -> None:
    table = BenchmarkAnswer.validate(predict_with_generator(recorder(), pubmedqa(), unpaid))
    assert table.select("task", "item").rows() == [
        (f"pubmedqa_{protocol}", str(item))
        for protocol in ("reasoning_required", "question_only")
        for item in (101, 102, 103)
    ]
    assert set(table["model"]) == {"scripted"}
    shown = table.head(3)
    assert shown["answer"].to_list() == ["yes", None, None]
    assert shown["right"].to_list() == [False, False, False]
    assert shown["failure"][1] == "the answer has no decision"
    assert str(shown["failure"][2]).startswith("not an answer")
    assert json.loads(str(shown["written"][0]))["decision"] == "yes"
    assert shown["written"][2] == "no JSON"
    assert table.tail(3)["failure"].unique().to_list() == ["there is no abstract"]


def test_a_generator_is_shown_the_abstract_and_nothing_beside_it() -> None:
    asked = recorder()
    predict_with_generator(asked, pl.concat([pubmedqa(1), letters()]), unpaid)
    first, second = asked.asked
    assert [section.label for section in first.document.sections] == ["METHODS", "RESULTS"]
    assert first.question == second.question == "Does amarin relieve pain?"
    assert second.document.sections == ()


def test_the_columns_of_what_is_said_are_those_of_the_rows() -> None:
    schema = BenchmarkAnswer.create_empty().schema
    assert {name: kind for name, kind in SAID.items() if name != "cut"} == {
        name: schema[name] for name in SAID if name != "cut"
    }
