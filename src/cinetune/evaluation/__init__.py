"""Predictions, metrics and statistics; pure computation on tables."""
