"""A folder that looks like an IOTstack to tar and to deflate, made the same each time."""

import json
import os
import random
import sqlite3
from contextlib import closing


def make(folder, *, megabytes=200):
    """Fill `folder` with a stack of about that size: half small texts, half databases and logs."""
    chance = random.Random(7)
    os.makedirs(f"{folder}/services/nodered")
    with open(f"{folder}/docker-compose.yml", "w") as stream:
        stream.write("services: {}\n")
    _modules(f"{folder}/volumes/nodered/data/node_modules", megabytes * 2**20 // 3, chance)
    _logs(f"{folder}/volumes/zigbee2mqtt/data/log", megabytes * 2**20 // 3, chance)
    _databases(f"{folder}/volumes/home_assistant", megabytes * 2**20 // 3, chance)


def _modules(folder, size_bytes, chance):
    made = 0
    words = [f"{chance.getrandbits(40):x}" for _ in range(3000)]
    while made < size_bytes:
        place = f"{folder}/{chance.choice(words)}/lib"
        os.makedirs(place, exist_ok=True)
        for _ in range(chance.randrange(2, 30)):
            keys = chance.sample(words, chance.randrange(20, 400))
            text = json.dumps({key: chance.choice(words) for key in keys}, indent=2)
            with open(f"{place}/{chance.choice(words)}.json", "w") as stream:
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
