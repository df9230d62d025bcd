# Two stages: one compiles a wheel, the other holds Python, the wheel and nothing else.
FROM python:3.11-slim-bookworm AS build
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py README.md ./
COPY zeekdb zeekdb
# --build-arg EXTRAS='[tiers]' for the clients of the database tiers
ARG EXTRAS=""
RUN pip wheel --no-cache-dir --wheel-dir /wheels ".${EXTRAS}"

FROM python:3.11-slim-bookworm
ARG EXTRAS=""
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels "zeekdb${EXTRAS}" \
    && useradd --system --uid 999 --no-create-home zeekdb \
    && install -d -o zeekdb -g zeekdb /data
COPY conf/zeekdb.conf /etc/zeekdb/zeekdb.conf
USER zeekdb
WORKDIR /data
VOLUME /data
EXPOSE 6379
STOPSIGNAL SIGTERM
# Through the protocol, as a client would: a server that asks for a password is alive too.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["python", "-c", "\
import os, socket, sys\n\
s = socket.create_connection(('127.0.0.1', int(os.environ.get('ZEEKDB_PORT', '6379'))), 2)\n\
s.sendall(b'*1\\r\\n$4\\r\\nPING\\r\\n')\n\
sys.exit(not s.recv(64).startswith((b'+PONG', b'-NOAUTH')))"]
# A container is reached from outside it, so protected mode would refuse everyone; publish the port with care.
ENTRYPOINT ["zeekdb", "serve", "/etc/zeekdb/zeekdb.conf"]
CMD ["--bind", "* -::*", "--protected-mode", "no"]
