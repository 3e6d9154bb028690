"""Replies of a model, from one pack to a whole split."""
