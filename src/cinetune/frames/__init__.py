"""The frames of a clip: which ones, decoded in a sandbox, stored."""
