#!/bin/bash
# Starts PostgreSQL as the official image's entrypoint does, for the variables that the kit uses:
# POSTGRES_USER, POSTGRES_PASSWORD_FILE, POSTGRES_DB, PGDATA, /docker-entrypoint-initdb.d/*.{sql,sh}.
set -euo pipefail

if [ "${1:-}" != postgres ]; then
  exec "$@"
fi

if [ "$(id -u)" = 0 ]; then
  # The password file is root's: read it before the rights are dropped, keep it out of the server's environment.
  if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
    install -m 0400 -o postgres -g postgres "$POSTGRES_PASSWORD_FILE" /run/postgresql/.initial_password
    unset POSTGRES_PASSWORD_FILE
  fi
  mkdir -p "$PGDATA"
  find "$PGDATA" ! -user postgres -exec chown postgres:postgres {} +
  chmod 0700 "$PGDATA"
  exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
fi

password=/run/postgresql/.initial_password
user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  if [ ! -s "$password" ]; then
    echo "error: the database is new and POSTGRES_PASSWORD_FILE is not set" >&2
    exit 1
  fi
  # Nothing half-made may be taken for a database after a crash in here.
  draft="$PGDATA.init"
  rm -rf "$draft"
  initdb --pgdata="$draft" --username="$user" --pwfile="$password" --encoding=UTF8 \
    --auth-local=trust --auth-host=scram-sha-256 >/dev/null
  echo "host all all all scram-sha-256" >>"$draft/pg_hba.conf"
  # On its Unix socket only: no other client can connect before the initialisation is done.
  pg_ctl --pgdata="$draft" --silent --wait start \
    -o "-c listen_addresses='' -c unix_socket_directories=/run/postgresql"
  if [ "$database" != postgres ]; then
    createdb --host=/run/postgresql --username="$user" "$database"
  fi
  for script in /docker-entrypoint-initdb.d/*; do
    case $script in
      *.sql) psql --host=/run/postgresql --username="$user" --dbname="$database" -v ON_ERROR_STOP=1 -qf "$script" ;;
      *.sh) bash "$script" ;;
    esac
  done
  pg_ctl --pgdata="$draft" --silent --wait --mode=fast stop
  sed -i 's/^local\(.*\)trust$/local\1scram-sha-256/' "$draft/pg_hba.conf"
  find "$PGDATA" -mindepth 1 -maxdepth 1 -exec mv -t "$draft" {} + 2>/dev/null || true
  mv "$draft"/* "$PGDATA"/
  rmdir "$draft"
fi
rm -f "$password"

exec "$@" -c listen_addresses='*' -c unix_socket_directories=/run/postgresql
