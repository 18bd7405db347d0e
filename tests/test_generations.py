"""What asking models came to, as metadata; and pruning of what no table rests on."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
from asking import Writer, asking, says

from mkailin_assets.generations import corpus_cost, generation_metadata, prune_generations
from mkailin_assets.questions.tables import CandidateQuestion
from mkailin_resources.generation import Generation
from mkailin_resources.generation_store import StoredText
from mkailin_resources.models.interface import Document, GenerationRequest
from mkailin_resources.storage import Storage

REQUESTS = [GenerationRequest(str(i), "question", Document(f"Title {i}.", ())) for i in range(4)]


def model(name: str = "Qwen/Qwen2.5-7B-Instruct") -> Writer:
    return Writer(says("Is it?"), name=name, is_paid=True)


def generation(root: Path, **prices: list[float]) -> Generation:
    return Generation(storage=Storage(root=str(root)), prices=prices)


def test_a_materialization_tells_calls_tokens_money_and_the_licence(tmp_path: Path) -> None:
    asking(tmp_path)(model("priced"), REQUESTS[:1], lambda *_: None)
    ask = asking(tmp_path)
    ask(model("priced"), REQUESTS, lambda *_: None)
    ask(model(), REQUESTS[:2], lambda *_: None)
    metadata = generation_metadata(ask.tallies, generation(tmp_path, priced=[1.0, 10.0]))
    assert {name: metadata[name] for name in ("requests", "reused", "generated", "failed")} == {
        "requests": 6,
        "reused": 1,
        "generated": 5,
        "failed": 0,
    }
    assert (metadata["tokens_in"], metadata["tokens_out"]) == (500, 50)
    assert metadata["money_spent"] == (300 * 1 + 30 * 10) / 1e6
    assert metadata["money_saved_by_reuse"] == (100 * 1 + 10 * 10) / 1e6
    assert "Apache-2.0" in metadata["generators"].value
    assert "ask" in metadata["generators"].value


def test_without_a_price_there_is_no_word_of_money(tmp_path: Path) -> None:
    ask = asking(tmp_path)
    ask(model(), REQUESTS, lambda *_: None)
    assert not [name for name in generation_metadata(ask.tallies, generation(tmp_path)) if "money" in name]


def test_the_corpus_tells_what_all_of_it_cost_and_what_reuse_saved(tmp_path: Path) -> None:
    assert corpus_cost(generation(tmp_path)) == {}
    for _ in range(3):
        asking(tmp_path)(model("priced"), REQUESTS, lambda *_: None)
    cost = corpus_cost(generation(tmp_path, priced=[1.0, 10.0]))
    assert (cost["texts_kept"], cost["tokens_in"], cost["tokens_saved_by_reuse"]) == (4, 400, 880)
    assert cost["money_spent"] == 4 * (100 + 100) / 1e6
    assert cost["money_saved_by_reuse"] == 2 * cost["money_spent"]


def test_pruning_keeps_what_tables_rest_on_and_what_is_young(tmp_path: Path) -> None:
    storage = Storage(root=str(tmp_path))
    old = datetime.now(UTC) - timedelta(days=40)
    made = {"used": (0, old), "unused": (1, old), "young": (2, datetime.now(UTC))}
    prints = {name: f"{number:032x}" for name, (number, _) in made.items()}
    with generation(tmp_path).store.writer() as writer:
        for name, (_, at) in made.items():
            writer.add(StoredText(prints[name], 0, "model", "prompt", "text", False, 1, 1, at))
    empty = dict.fromkeys(CandidateQuestion.create_empty().columns)
    row = empty | {"pmid": 1, "role": "domain", "fingerprint": prints["used"]}
    table = pl.DataFrame([row], schema=CandidateQuestion.create_empty().schema)
    storage.write_table(table, "candidate_questions", "C04")
    done = prune_generations.execute_in_process(
        resources={"storage": storage, "generation": generation(tmp_path)},
        instance=dg.DagsterInstance.ephemeral(),
    )
    assert done.success
    found = generation(tmp_path).store.find(prints.values())
    assert {fingerprint for fingerprint, _ in found} == {prints["used"], prints["young"]}
