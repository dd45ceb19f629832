# Runs in a PostgreSQL container:
#   sh -c THIS sh ready | dump | ask QUESTION [DATABASE] | load FILE
# The password comes from the container's own environment: it is on no command line.
set -eu
export PGUSER="${POSTGRES_USER:-postgres}" PGPASSWORD="${POSTGRES_PASSWORD-}" PGDATABASE=postgres
[ -z "${POSTGRES_USER_FILE-}" ] || PGUSER=$(cat "$POSTGRES_USER_FILE")
[ -z "${POSTGRES_PASSWORD_FILE-}" ] || PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")

case $1 in
# By TCP: the server that an image makes its databases with answers on the socket only.
ready) exec pg_isready --host=127.0.0.1 ;;
dump) exec pg_dumpall --no-password ;;
ask)
  exec psql --no-psqlrc --no-password --quiet --tuples-only --no-align \
    --dbname="${3:-postgres}" --command="$2"
  ;;
load) exec psql --no-psqlrc --no-password --quiet --file="$2" >/dev/null ;;
esac
