"""OpenAI's chat protocol: what its requests ask, and the shape of its responses."""
