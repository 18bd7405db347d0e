"""The release stage: what people publish, load, verify and cite."""
