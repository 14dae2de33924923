# The studio for NVIDIA cards: docker build -t studio . && docker run --gpus all -p 7860:7860 -v studio:/data studio
# CUDA 13.0 like the pinned torch, which brings its own CUDA libraries: the base flavour (the CUDA runtime alone) is enough.
FROM nvidia/cuda:13.0.2-base-ubuntu24.04

# Ubuntu's archive keeps only the newest patch of a package, so a pinned version would stop building.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 studio \
    && install --directory --owner studio --group studio /data

WORKDIR /app
COPY requirements.txt .
RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir --requirement requirements.txt
COPY . .

ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    STUDIO_DATA_DIR=/data
USER 10001
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:7860/api/v1/health', timeout=4)"]
# Beyond loopback the studio asks for a key, which it makes and prints at its first start.
CMD ["python", "app.py", "--listen"]
