"""What requests ask: their rows and parameters, in each of MLflow's forms."""
