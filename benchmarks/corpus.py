"""A folder that looks like an IOTstack to tar and to deflate, made the same each time."""

import json
import os
import random
import sqlite3
import subprocess
from contextlib import closing

UNIT_MB = 200
UNIT = ("nodered", "zigbee2mqtt", "home_assistant", "motioneye", "prometheus")


def make(folder, *, megabytes=200):
    """Fill `folder` with a stack of about that size.

    A quarter each: small texts, logs, a database; the rest are pictures, which do not compress,
    and files that are zeros for the most part, as Prometheus lays them out. What is over UNIT_MB
    are copies of the first: farther apart than deflate can see, and made faster.
    """
    os.makedirs(f"{folder}/services/nodered")
    with open(f"{folder}/docker-compose.yml", "w") as stream:
        stream.write("services: {}\n")
    _volumes(f"{folder}/volumes", min(megabytes, UNIT_MB) * 2**20, random.Random(7))
    for number in range(2, megabytes // UNIT_MB + 1):
        for name in UNIT:
            copied = ("cp", "-R", f"{folder}/volumes/{name}", f"{folder}/volumes/{name}_{number}")
            subprocess.run(copied, check=True)


def _volumes(folder, size_bytes, chance):
    _modules(f"{folder}/nodered/data/node_modules", size_bytes // 4, chance)
    _logs(f"{folder}/zigbee2mqtt/data/log", size_bytes // 4, chance)
    _databases(f"{folder}/home_assistant", size_bytes // 4, chance)
    _pictures(f"{folder}/motioneye/media", size_bytes // 8, chance)
    _zeros(f"{folder}/prometheus/data/chunks_head", size_bytes // 8, chance)


def _modules(folder, size_bytes, chance):
    made = 0
    words = [f"{chance.getrandbits(40):x}" for _ in range(3000)]
    while made < size_bytes:
        storage = f"{folder}/{chance.choice(words)}/lib"
        os.makedirs(storage, exist_ok=True)
        for _ in range(chance.randrange(2, 30)):
            keys = chance.sample(words, chance.randrange(20, 400))
            text = json.dumps({key: chance.choice(words) for key in keys}, indent=2)
            with open(f"{storage}/{chance.choice(words)}.json", "w") as stream:
                made += stream.write(text)


def _logs(folder, size_bytes, chance):
    os.makedirs(folder)
    made = number = 0
    while made < size_bytes:
        number += 1
        with open(f"{folder}/log.{number}.txt", "w") as stream:
            for line in range(50_000):
                made += stream.write(
                    f"2026-11-{line % 28 + 1:02} {line % 24:02}:00:00 info: zigbee2mqtt/sensor_"
                    f'{chance.randrange(40)}, payload \'{{"temperature":{chance.random():.3f},'
                    f'"linkquality":{chance.randrange(255)}}}\'\n'
                )


def _databases(folder, size_bytes, chance):
    os.makedirs(folder)
    path = f"{folder}/home-assistant_v2.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE states (id INTEGER PRIMARY KEY, entity TEXT, state REAL)")
        while os.path.getsize(path) < size_bytes:
            rows = [(f"sensor.room_{n % 60}", chance.random() * 30) for n in range(50_000)]
            database.executemany("INSERT INTO states (entity, state) VALUES (?, ?)", rows)
            database.commit()


def _pictures(folder, size_bytes, chance):
    os.makedirs(folder)
    for number in range(max(1, size_bytes >> 19)):
        with open(f"{folder}/{number}.jpg", "wb") as stream:
            stream.write(chance.randbytes(min(size_bytes, 1 << 19)))


def _zeros(folder, size_bytes, chance):
    os.makedirs(folder)
    for number in range(max(1, size_bytes >> 24)):
        with open(f"{folder}/{number:06}", "wb") as stream:
            stream.write(chance.randbytes(min(size_bytes, 1 << 24) // 8))
            stream.write(bytes(min(size_bytes, 1 << 24) * 7 // 8))
