# Runs in an InfluxDB 2 container:
#   sh -c THIS sh token | ready | backup FOLDER | gather FOLDER
# The token comes from the container's own environment or its file influx-configs: it is on no
# command line; `token` ends with 3 where it finds none. `gather` puts beside the dump what a server
# needs besides: the snapshots of its catalogue, unpacked, and its configuration. Written from the documentation of influx(1), not run.
set -eu
configs="${INFLUX_CONFIGS_PATH:-/etc/influxdb2/influx-configs}"
if [ -z "${INFLUX_TOKEN-}" ] && ! grep -qs '^[^#]*token *= *"[^"]' "$configs"; then
  INFLUX_TOKEN="${DOCKER_INFLUXDB_INIT_ADMIN_TOKEN-}"
  file="${DOCKER_INFLUXDB_INIT_ADMIN_TOKEN_FILE-}"
  [ -z "$file" ] || INFLUX_TOKEN=$(cat "$file")
  export INFLUX_TOKEN
fi

like() {
  chown "$(stat -c %u:%g "$1")" "$2"
  chmod "$(stat -c %a "$1")" "$2"
}

gather() {
  data="${INFLUXD_BOLT_PATH:-/var/lib/influxdb2/influxd.bolt}"
  data="${data%/*}"
  mkdir "$1/data"
  like "$data" "$1/data"
  for kind in bolt sqlite; do
    for each in "$1/backup/"*."$kind.gz"; do
      [ -f "$each" ] || continue
      gzip -dc "$each" > "$1/data/influxd.$kind"
      [ ! -f "$data/influxd.$kind" ] || like "$data/influxd.$kind" "$1/data/influxd.$kind"
    done
  done
  config="${configs%/*}"
  [ -d "$config" ] || return 0
  mkdir "$1/config"
  cp -a "$config/." "$1/config/"
}

case $1 in
token) [ -n "${INFLUX_TOKEN-}" ] || grep -qs '^[^#]*token *= *"[^"]' "$configs" || exit 3 ;;
ready) exec influx ping ;;
backup) exec influx backup "$2" ;;
gather) gather "$2" ;;
esac
