"""Fine-tune Video-LLaVA on CinePile, evaluate it so that the numbers can be trusted, and serve it."""

__version__ = "0.2.0"
