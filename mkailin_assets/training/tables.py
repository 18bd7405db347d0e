"""Tables of the training stage."""

import dataframely as dy


class Checkpoint(dy.Schema):
    """A trained model: where its folder is and what made it. One row (docs/method.md)."""

    name = dy.String(description="What it is: finetuned")
    uri = dy.String(description="Folder: adapter, base, tokenizer, training.json")
    fingerprint = dy.String(description="Hash of data, base, settings, seed and code")
    base_model = dy.String(description="Base model and revision, or the embedded Llama's configuration")
    examples = dy.Int64(min=0, description="Examples trained on")
    steps = dy.Int64(min=0, description="Optimizer steps")
    first_loss = dy.Float64(description="Mean training loss of the first logged step")
    last_loss = dy.Float64(description="Training loss of the last logged step")
    validation_loss = dy.Float64(nullable=True, description="Loss on the validation split; null if empty")
    weights_sha256 = dy.String(description="SHA-256 of adapter_model.safetensors")
