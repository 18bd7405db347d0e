"""A trainer of transformers over a tiny Llama, for the tests of what our trainings share.

`python -m tiny_trainer FOLDERS.json` trains in each folder, as one of several processes that share the model.
"""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mkailin_assets.trainer import train_to_the_end


def tiny_trainer(
    folder: Path, callbacks: Sequence[Any] = (), *, lora: bool = False, rows: int = 16, **given: Any
) -> Any:
    """A training of 12 steps that logs, looks at held-out examples and saves at each; the same each time.

    The loss of the held-out examples is lowest after step 2. A checkpoint's weights take 130 KB.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

    set_seed(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=32,
        )
    )
    if lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    drawn = torch.randint(0, 32, (rows, 8), generator=torch.Generator().manual_seed(0)).tolist()
    examples = [{"input_ids": row, "labels": row, "attention_mask": [1] * 8} for row in drawn]
    backwards = [{name: values[::-1] for name, values in row.items()} for row in examples[:4]]
    arguments = {
        "output_dir": str(folder),
        "max_steps": 12,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.005,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "include_num_input_tokens_seen": "non_padding",
        "eval_strategy": "steps",
        "eval_steps": 1,
        "prediction_loss_only": True,
        "save_steps": 1,
        "save_total_limit": 2,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return Trainer(
        model=model,
        args=TrainingArguments(**arguments | given),
        train_dataset=examples,
        eval_dataset=backwards,
        callbacks=list(callbacks),
    )


def weights_of(trainer: Any) -> bytes:
    """Its model's weights."""
    return b"".join(weights.detach().numpy().tobytes() for weights in trainer.model.parameters())


def in_processes_with_shares() -> None:
    """Let accelerate shard a model over processes on a CPU, as torch can; accelerate 1.15 asks for a GPU."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)


def main(folders: list[str]) -> None:
    """Train one in each folder, in turn; the first process prints what came of it, as JSON."""
    for folder in folders:
        trainer = tiny_trainer(Path(folder), use_cpu=False, bf16=False)
        course = train_to_the_end(trainer, Path(folder), print)
        weights = trainer.accelerator.get_state_dict(trainer.model)
        if trainer.is_world_process_zero():
            digest = hashlib.sha256(b"".join(weights[name].numpy().tobytes() for name in sorted(weights)))
            shares = [type(weights).__name__ for weights in trainer.model.parameters()]
            print(json.dumps([course.model_dump(), digest.hexdigest(), shares]))


if __name__ == "__main__":
    in_processes_with_shares()
    main(json.loads(Path(sys.argv[1]).read_text()))
