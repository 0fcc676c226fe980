# nextword in a container, with the folder it is started in as /work:
#
#   docker build -t nextword .
#   docker run --rm -it -u "$(id -u):$(id -g)" -v "$PWD:/work" -v nextword:/cache nextword train book.txt
#   docker run --rm -it -p 127.0.0.1:8000:8000 -v "$PWD:/work" nextword serve latest --host 0.0.0.0 --api-key KEY
#
# pip takes the torch that it finds, which on Linux brings CUDA along; INDEX names another place to
# look in, as PyTorch's own for processors alone. A GPU needs `--gpus all` and NVIDIA's container kit.

FROM debian:trixie-slim AS python
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/nextword && mkdir -m 1777 /cache
ENV PATH=/opt/nextword/bin:$PATH NEXTWORD_CACHE=/cache PYTHONUNBUFFERED=1
WORKDIR /work

# What working on nextword needs: .devcontainer/devcontainer.json begins here.
FROM python AS develop
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium-headless-shell fish g++ git man-db python3-dev zsh \
    && rm -rf /var/lib/apt/lists/*

# What using it needs.
FROM python AS use
ARG INDEX=
ARG EXTRAS=documents,serve
COPY . /tmp/nextword
RUN pip install --no-cache-dir ${INDEX:+--extra-index-url "$INDEX"} "/tmp/nextword[$EXTRAS]" && rm -rf /tmp/nextword
ENTRYPOINT ["nextword"]
CMD ["--help"]
