# The hub as one image: `serve` and `worker` against real servers (see compose.yaml), or `up`, the default, alone.
FROM python:3.13-slim AS build
WORKDIR /build
RUN python -m venv /opt/hub
COPY requirements-build.txt requirements.txt ./
RUN /opt/hub/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-build.txt
RUN /opt/hub/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-build-isolation -r requirements.txt
COPY pyproject.toml README.md ./
COPY hub hub
COPY connectors connectors
COPY mappings mappings
COPY contracts contracts
RUN /opt/hub/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/hub hub
COPY --from=build /opt/hub /opt/hub
ENV PATH=/opt/hub/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HUB_CONFIG=/etc/hub/hub.yaml \
    HUB_DATA=/var/lib/hub
USER hub
WORKDIR /etc/hub
# hub.yaml with its mappings and templates is mounted here; its `web.host` must be 0.0.0.0 to be reached from outside.
VOLUME ["/var/lib/hub"]
EXPOSE 8025
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8025/healthz', timeout=4)"]
ENTRYPOINT ["hub"]
CMD ["up"]
