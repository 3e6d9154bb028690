"""How the tiny base model was made."""
