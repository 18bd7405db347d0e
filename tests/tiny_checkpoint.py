"""Checkpoints as trainings leave them, with random weights in place of trained ones."""

import hashlib
from pathlib import Path
from typing import Any, Literal

from tiny_model import make_model

from mkailin_assets import adapters
from mkailin_assets.trainer import LossCurve, TrainingCourse
from mkailin_assets.training.card import CARD, model_card
from mkailin_assets.training.checkpoints import TrainingRecord, base_of, load, tokenizer_folder
from mkailin_assets.training.recipes import Stage
from mkailin_assets.training.tokenizer import tokenizer_sha256
from mkailin_resources.models import model_files
from mkailin_resources.models.model_name import ModelName

# whole: all weights of a small Llama; small: adapters over one, and its embeddings in full; over: adapters
# over a model in a folder of its own.
Sort = Literal["whole", "small", "over"]
COMMIT = "0123456789abcdef" * 2 + "01234567"
_TEXTS = ("Does amarin relieve migraine?", "We gave amarin or placebo to 120 adults.", "Answer yes or no.")


def record(**changes: Any) -> TrainingRecord:
    """The record of a fine-tuned adapter over a model of the Hub."""
    given: dict[str, Any] = {
        "name": "finetuned",
        "fingerprint": "1a2b3c4d" * 4,
        "recipe": "2",
        "base": "Qwen/Qwen2.5-1.5B",
        "revision": COMMIT,
        "parameters": 1_543_714_304,
        "trained_parameters": 18_464_768,
        "course": TrainingCourse(
            steps=620,
            kept_step=400,
            resumed_at=None,
            seconds=3_600,
            tokens=81_234_567,
            curve=LossCurve(
                train=[(25, 1.8125), (620, 0.9375)], validation=[(0, 1.75), (400, 1.25), (620, 1.375)]
            ),
        ),
        "packages": {"torch": "2.13.0", "trl": "1.16.0"},
        "sha256": {"adapter/adapter_model.safetensors": "0" * 64},
        "data_fingerprint": "5e6f7a8b" * 4,
        "recipe_name": "1b",
        "started_from": "9c0d1e2f" * 4,
        "method": "lora",
        "settings": Stage(learning_rate=1.25e-4),
        "lora_rank": 16,
        "lora_alpha": 32,
        "examples": 12_345,
        "validation_examples": 678,
        "left_out": {"the question is too long": 9},
        "cut_to_fit": 1_234,
        "processes": 1,
        "tokenizer_sha256": "f" * 64,
        "template": "own",
    }
    return TrainingRecord.model_validate(given | changes)


def tiny_checkpoint(folder: Path, sort: Sort, **changes: Any) -> Path:
    """A checkpoint in `checkpoint/` of a folder; what adapters over a model sit on is in `base/` of it."""
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(parents=True)
    facts: dict[str, Any] = {"base": "", "revision": "", "method": "full"}
    facts["fingerprint"] = hashlib.blake2b(sort.encode(), digest_size=16).hexdigest()
    if sort == "whole":
        tokenizer = adapters.load_tokenizer(ModelName(str(make_model(checkpoint / adapters.MODEL))))
    else:
        if sort == "small":
            adapters.make_base(_TEXTS, 300, 128, 1, checkpoint)
            base = ModelName(str(checkpoint / adapters.BASE))
        else:
            base = ModelName(str(make_model(folder / "base")))
            facts |= {"base": base.name, "revision": model_files.identity(base)[1]}
        facts["method"] = "lora"
        tokenizer = adapters.load_tokenizer(base)
        adapters.write_adapter(_adapted(base, sort == "small"), base, checkpoint)
        tokenizer.save_pretrained(checkpoint / adapters.ADAPTER)
    made = record(**facts, tokenizer_sha256=tokenizer_sha256(tokenizer), **changes)
    (checkpoint / CARD).write_text(model_card(made), encoding="utf-8")
    adapters.write_record(made.model_copy(update={"sha256": adapters.files_of(checkpoint)}), checkpoint)
    return checkpoint


def _adapted(base: ModelName, is_random: bool) -> Any:
    """Adapters, and where they are trained embeddings too, that say something else than the base."""
    import torch
    from peft import get_peft_model

    network: Any = get_peft_model(
        adapters.load_base(base, "CAUSAL_LM", 1), adapters.lora(8, 16, "CAUSAL_LM", is_random)
    )
    torch.manual_seed(1)
    for name, weights in network.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(weights, std=0.2)
    return network


def load_trained(folder: Path) -> tuple[Any, Any]:
    """The model of a checkpoint and its tokenizer."""
    return load(adapters.model_of(folder), tokenizer_folder(folder))


def load_base(folder: Path) -> tuple[Any, Any]:
    """The model of a checkpoint before any training, with the tokenizer of the checkpoint."""
    return load(base_of(folder), tokenizer_folder(folder))
