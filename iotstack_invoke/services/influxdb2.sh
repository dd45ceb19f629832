# Runs in an InfluxDB 2 container:
#   sh -c THIS sh ready | backup FOLDER
# The token comes from the container's own environment or its file influx-configs: it is on no
# command line. Written from the documentation of influx(1), not run.
set -eu
configs="${INFLUX_CONFIGS_PATH:-/etc/influxdb2/influx-configs}"
if [ -z "${INFLUX_TOKEN-}" ] && [ ! -s "$configs" ]; then
  INFLUX_TOKEN="${DOCKER_INFLUXDB_INIT_ADMIN_TOKEN-}"
  file="${DOCKER_INFLUXDB_INIT_ADMIN_TOKEN_FILE-}"
  [ -z "$file" ] || INFLUX_TOKEN=$(cat "$file")
  export INFLUX_TOKEN
fi

case $1 in
ready) exec influx ping ;;
backup) exec influx backup "$2" ;;
esac
