# The server on a CPU. Build it from the project's root; docs/serving.md has the commands.
FROM python:3.11-slim

# bitsandbytes needs OpenMP's runtime; PyAV, OpenCV and PyTorch bring what they need.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 cinetune

WORKDIR /home/cinetune
COPY pyproject.toml requirements.lock README.md LICENSE /build/
COPY src /build/src
# The address of PyTorch's index of CPU wheels: those of the usual index bring gigabytes for GPUs.
ARG CPU_WHEELS
RUN test -n "$CPU_WHEELS" \
    || { echo "error: name PyTorch's index of CPU wheels: --build-arg CPU_WHEELS=<address>." >&2; exit 2; }
RUN python -m pip install --no-cache-dir --extra-index-url "$CPU_WHEELS" --constraint /build/requirements.lock /build \
    && rm -r /build \
    && python -c "import sys, torch; sys.exit(torch.version.cuda and 'error: CPU_WHEELS has no CPU wheel of PyTorch.')"
# Defaults and remarks of `serve --help`.
COPY --chown=cinetune params.yaml ./

USER cinetune
ENV GIT_PYTHON_REFRESH=quiet \
    MLFLOW_DISABLE_TELEMETRY=true \
    PYTHONUNBUFFERED=1
EXPOSE 5000
# 503 until the model is loaded.
HEALTHCHECK --interval=15s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/ping', timeout=4)"]
# Publish the port on loopback or behind a proxy: the server has no authentication.
ENTRYPOINT ["python", "-m", "cinetune", "serve", "--host", "0.0.0.0", "--port", "5000"]
CMD ["models:/cinepile-video-llava@champion"]
