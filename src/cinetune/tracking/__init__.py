"""MLflow: runs, the registry, where things come from."""
