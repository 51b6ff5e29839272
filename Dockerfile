# The app of this tree on a CPU:
#   docker build -t deepfake-detectors .
#   docker run --rm -p 127.0.0.1:7860:7860 deepfake-detectors --model m2f2-det-mini
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

# The CPU build of PyTorch; the one that pip takes by default carries several gigabytes for GPUs.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /build
COPY . .
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" \
        "$(grep '^torch==' constraints.txt | cut -d' ' -f1)" "$(grep '^torchvision==' constraints.txt | cut -d' ' -f1)" \
    && pip install --no-cache-dir -c constraints.txt ".[app,faces,video,provenance]" \
    && rm -rf /build/*

RUN useradd --create-home app
USER app
WORKDIR /home/app
EXPOSE 7860
ENTRYPOINT ["deepfake-detectors", "app", "--host", "0.0.0.0"]
