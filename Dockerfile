# The server in a small image: docker build -t penstock . && docker run -v ./models:/models -p 8001:8001 penstock
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# ONNX Runtime's operators on text need this locale, which the Python image lacks: without it, text models of
# scikit-learn cannot be loaded. Only the output of localedef is shipped, so the package's version is not pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends locales \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /opt/penstock/lib/locale \
    && localedef -i en_US -f UTF-8 /opt/penstock/lib/locale/en_US.UTF-8

# What changes rarely comes first, so that a change of the source does not fetch the dependencies again.
# The environment that is shipped has no pip: the builder's own pip fills it from outside.
COPY requirements/serve.txt requirements/build.txt requirements/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install -q --require-hashes -r requirements/build.txt \
    && python -m venv --without-pip /opt/penstock \
    && /opt/build/bin/pip --python /opt/penstock/bin/python install -q --require-hashes -r requirements/serve.txt

RUN mkdir -p /var/cache/penstock

COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY src/ src/
COPY clients/python/ clients/python/
RUN PENSTOCK_BUILD_FOR_OTHERS=1 /opt/build/bin/pip wheel -q --no-deps --no-build-isolation --wheel-dir wheels ./clients/python . \
    && /opt/build/bin/pip --python /opt/penstock/bin/python install -q --no-deps --no-index wheels/*.whl

FROM python:${PYTHON_VERSION}-slim AS runtime
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="penstock" \
      org.opencontainers.image.description="A gRPC streaming inference server for ONNX models" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"

# An environment knows its own path: it must lie where the builder made it.
COPY --from=builder /opt/penstock /opt/penstock
# What is learned about models is kept here, where a volume is mounted: a new volume gets the folder's owner.
COPY --from=builder --chown=10001:10001 /var/cache/penstock /var/cache/penstock
ENV PATH=/opt/penstock/bin:$PATH \
    LOCPATH=/opt/penstock/lib/locale \
    PENSTOCK_CACHE__FOLDER=/var/cache/penstock \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
VOLUME /models
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["penstock", "health"]
ENTRYPOINT ["penstock"]
CMD ["serve", "/models", "--host", "0.0.0.0"]
