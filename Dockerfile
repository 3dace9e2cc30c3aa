# docker build -t identity-graphql .
# docker run -p 8000:8000 -v identity:/data identity-graphql
#
# Without settings the data is in a SQLite file in the volume /data; DATABASE_URL names another database.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# What changes seldom comes first, so that it is built seldom.
COPY requirements.txt requirements-build.txt ./
RUN python -m venv /venv && /venv/bin/pip install --require-hashes -r requirements.txt
RUN python -m venv /build && /build/bin/pip install --require-hashes -r requirements-build.txt
COPY pyproject.toml README.md LICENSE ./
COPY alembic alembic
COPY identity_graphql identity_graphql
RUN /build/bin/pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheels .
RUN /venv/bin/pip install --no-deps --no-index /wheels/*.whl

FROM python:3.13-slim
RUN useradd --no-create-home --uid 10001 identity && install --directory --owner=identity /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
ENV HOST=0.0.0.0 PORT=8000 LOG_FORMAT=json DATABASE_URL=sqlite:////data/identity.db
WORKDIR /data
VOLUME /data
USER identity
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/ready'); sys.exit(c.getresponse().status != 200)"]
# Migrates under a lock before it serves; AUTO_MIGRATE=false leaves that to `identity-graphql migrate`.
CMD ["identity-graphql", "serve"]
