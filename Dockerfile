# fastbts in a container: docs/how-to/docker.md. The compiler stays in the first stage.
FROM python:3.13-slim AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY constraints.txt ./
# The locked versions, hashes checked; cmake and ninja are for this stage alone.
RUN python -m venv /opt/fastbts \
    && /opt/fastbts/bin/pip install --no-cache-dir --require-hashes --requirement constraints.txt \
    && /opt/fastbts/bin/pip install --no-cache-dir cmake==4.* ninja==1.*
COPY pyproject.toml README.md LICENSE CMakeLists.txt ./
COPY csrc csrc
COPY models models
COPY fastbts fastbts
RUN PATH=/opt/fastbts/bin:$PATH \
    /opt/fastbts/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && /opt/fastbts/bin/pip uninstall --yes cmake ninja scikit-build-core pybind11 pip

FROM python:3.13-slim
COPY --from=build /opt/fastbts /opt/fastbts
# No user of the host has this number. A new volume at /queue takes owner and mode from here.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin fastbts \
    && install --directory --owner=fastbts --mode=0700 /queue
# Nothing is written but /queue, /tmp, and where `--out` says: also with a read-only file system.
ENV PATH=/opt/fastbts/bin:$PATH PYTHONDONTWRITEBYTECODE=1 FASTBTS_CACHE=off
USER 10001
WORKDIR /tmp
ENTRYPOINT ["fastbts"]
CMD ["--help"]
