"""What Docker says of a container, word for word."""

AWAY = (
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is it running?",
    (  # since Docker 29
        "failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is "
        "correct and if the daemon is running: dial unix /var/run/docker.sock: connect: no such "
        "file or directory"
    ),
)
