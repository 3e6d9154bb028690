"""Questions as MLflow traces, and what people said of them."""
