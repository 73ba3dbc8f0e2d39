# Dagster's UI and daemon on one lake volume.
#
#   docker build -t stock-assets .
#   docker run --init -p 127.0.0.1:3000:3000 -p 127.0.0.1:3001:3001 -v lake:/lake stock-assets
#
# Another universe: mount its settings and name them, -e STOCK_ASSETS_SETTINGS=/settings/market.toml.
# Other commands of `stock-assets` take the place of `dev`: docker run ... stock-assets status

FROM python:3.11-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY . .
# The command that CI and every checkout use: uv, the locked packages, the project.
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 PIP_NO_CACHE_DIR=1
ENV UV_CACHE_DIR=/uv-cache
RUN --mount=type=cache,target=/uv-cache make install && rm -rf .uv

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin assets \
    && install --directory --owner=assets --group=assets /lake
WORKDIR /app
COPY --from=build --chown=assets:assets /app /app
# Evidently's and MLflow's usage reports stay off, as everywhere.
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    STOCK_ASSETS_LAKE__PATH=/lake \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true
USER 10001
VOLUME /lake
# 3000: the UI. 3001: the saved drift pages that it links to.
EXPOSE 3000 3001
HEALTHCHECK --interval=30s --timeout=10s --start-period=90s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:3000/server_info', timeout=8)"]
ENTRYPOINT ["stock-assets"]
CMD ["dev", "--host", "0.0.0.0"]
