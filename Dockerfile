# etude on a CPU, as a user without rights, with what `etude serve` needs:
#
#   docker build --tag etude .
#   docker run --rm --volume "$PWD:/data" etude practice tiny --run runs/tiny
#
# The folder that is mounted must be writable for user 1000, or for the one of --user "$(id -u)".
FROM python:3.11-slim

# torch's own index has builds without CUDA, which are a tenth as large
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV HF_HUB_DISABLE_TELEMETRY=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

# etude compiles kernels where there is a compiler, which doubles its speed; any version of it will do
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends g++ && \
    rm -rf /var/lib/apt/lists/*

WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY etude etude
RUN pip install --extra-index-url "$TORCH_INDEX" --constraint constraints.txt ".[gym,plot,serve]"

# models and kernels are kept in /data, too, so that a mounted folder keeps them; HOME is there for any --user
RUN useradd --uid 1000 --no-create-home etude && install --directory --owner etude /data
ENV HOME=/data \
    ETUDE_CACHE=/data/.cache/etude
USER 1000
WORKDIR /data
ENTRYPOINT ["etude"]
CMD ["--help"]
