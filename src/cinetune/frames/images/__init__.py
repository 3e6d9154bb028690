"""Clips that are images already: which of them are looked at, decoded in a sandbox."""
