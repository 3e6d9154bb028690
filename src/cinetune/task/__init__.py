"""The task: question rows and the prompt. No torch, MLflow or PyAV."""
