"""The base model, its LoRA adapter, and packs: one clip with its questions as one sequence."""
