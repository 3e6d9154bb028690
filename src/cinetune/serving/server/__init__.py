"""The server around MLflow's: limits, readiness, metrics, errors in one sentence."""
