"""One training: LoRA on packs with Hugging Face's Trainer."""
