"""Many trainings: sweeps and studies."""
