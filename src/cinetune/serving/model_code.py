"""The file that MLflow runs to get the served model: code instead of a pickle. Not for import."""

from mlflow.models import set_model

from cinetune.serving.pyfunc import ClipModel

set_model(ClipModel())
