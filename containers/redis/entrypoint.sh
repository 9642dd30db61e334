#!/bin/sh
# As the official image's entrypoint: started as root, it hands /data to redis and drops to that user.
set -eu
if [ "${1:-}" = redis-server ] && [ "$(id -u)" = 0 ]; then
  find . ! -user redis -exec chown redis {} +
  exec setpriv --reuid redis --regid redis --clear-groups "$@"
fi
exec "$@"
