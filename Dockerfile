# The registry as a container image, in the place of registry:2: docker build -t registry-secure .
# The base may be any image with Node >= 20.19, npm and a POSIX shell.
ARG NODE_IMAGE=node:24-bookworm-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY tsconfig.json ./
COPY src src
RUN npm run build -- --noCheck && npm prune --omit=dev

FROM ${NODE_IMAGE}
LABEL org.opencontainers.image.title="registry-secure" \
  org.opencontainers.image.description="A private OCI and Docker registry with its own certificate authority, users and client trust."
COPY --from=build /build/node_modules /opt/registry-secure/node_modules
COPY --from=build /build/dist/src /opt/registry-secure/dist/src
COPY package.json /opt/registry-secure/
COPY bin/node-version.js bin/registry-secure.js bin/docker-entrypoint.sh /opt/registry-secure/bin/

# `registry` is what the original is called in cron jobs: docker exec registry bin/registry garbage-collect CONFIG.
# The folders are open for any user, as /tmp is, so that --user needs no preparation; keys in them are mode 0600.
RUN ln -s /opt/registry-secure/bin/registry-secure.js /usr/local/bin/registry-secure \
  && ln -s /opt/registry-secure/bin/registry-secure.js /bin/registry \
  && mkdir -p /etc/docker/registry /var/lib/registry /certs /auth \
  && printf 'version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: /var/lib/registry\n' > /etc/docker/registry/config.yml \
  && chown 65532:65532 /var/lib/registry /certs /auth \
  && chmod 1777 /var/lib/registry /certs /auth

# Started as root, to read root's keys and to take port 443, it becomes the owner of the volume (docs/operations.md).
# Node's own four threads for files let two flushes go at a time: enough for a disk without moving parts, and for no other.
# Each thread would have an arena of memory to itself; workers are given two as they are started, but not what starts them.
ENV NODE_ENV=production \
  MALLOC_ARENA_MAX=2 \
  UV_THREADPOOL_SIZE=16 \
  REGISTRY_SECURE_USER=volume
WORKDIR /
VOLUME ["/var/lib/registry", "/certs", "/auth"]
EXPOSE 5000 443
# A swarm waits for the first look before it counts a task as running, and that comes after one interval.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["registry-secure", "health"]
ENTRYPOINT ["/opt/registry-secure/bin/docker-entrypoint.sh"]
CMD ["serve", "/etc/docker/registry/config.yml"]
