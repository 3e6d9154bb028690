"""A fine-tuned model as a folder that other programs open, with the proof that it is the same model."""
