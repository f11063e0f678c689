# The service in a container: no shell script, no root, no write outside of /data.
#
#   docker build -t lessor .
#   docker run --read-only --volume lessor:/data --publish 50051:50051 \
#       --volume ./tls:/tls:ro --env LESSOR_TLS_CERT_FILE=/tls/cert.pem --env LESSOR_TLS_KEY_FILE=/tls/key.pem lessor
#
# Behind something that ends TLS, LESSOR_INSECURE_LISTEN=true serves in the clear; no default does.
# This file was written on a machine without a container engine and has not been built. Each RUN step
# works in a plain virtual environment as well, and that is how they were tried.
#
# A digest does not move. For the newest image of the tag, put the digest that this prints into both lines:
#
#   docker buildx imagetools inspect python:3.11-slim --format '{{.Manifest.Digest}}'

FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7 AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
COPY requirements requirements
RUN python -m venv /opt/build
RUN /opt/build/bin/pip install --require-hashes --only-binary :all: -r requirements/build.txt
RUN python -m venv /opt/lessor
RUN /opt/lessor/bin/pip install --require-hashes --only-binary :all: -r requirements/server.txt
COPY . .
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist .
RUN /opt/lessor/bin/pip install --no-deps dist/*.whl
RUN install -d -m 0700 /opt/data

FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7
COPY --from=build /opt/lessor /opt/lessor
COPY --from=build --chown=10001:10001 /opt/data /data
ENV PATH=/opt/lessor/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LESSOR_LISTEN=0.0.0.0:50051 \
    LESSOR_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 50051
STOPSIGNAL SIGTERM
# Asks grpc.health.v1 at LESSOR_ADDR (127.0.0.1:50051 by default); with TLS, set LESSOR_CACERT, which makes it use TLS.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["lessor", "health"]
ENTRYPOINT ["lessor"]
CMD ["server"]
