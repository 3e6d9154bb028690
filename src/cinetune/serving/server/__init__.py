"""The server: limits, readiness, metrics, errors in one sentence."""
