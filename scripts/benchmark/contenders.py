"""The ways to move users. Each is a function that returns when the move is done by its own standards."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

from .servers import check, environment, psql, uri

BATCH = 500
TABLES = ("users", "orders", "items")


class Unavailable(Exception):
    """A contender is not on this machine; the report says so."""

def pipe(world):
    for name in TABLES:
        copy(world, name, f"id <= {world.users}")


def pipe_no_checks(world):
    for name in TABLES:
        copy(world, name, f"id <= {world.users}", "-c session_replication_role=replica")


def batches_md5(world):
    different = 0
    for first in range(1, world.users + 1, BATCH):
        last = min(first + BATCH - 1, world.users)
        for name in TABLES:
            copy(world, name, f"id BETWEEN {first} AND {last}")
        for name in TABLES:
            check_sum = f"SELECT count(*), md5(string_agg(md5(t::text), '' ORDER BY id)) FROM ({rows(name, f'id BETWEEN {first} AND {last}')}) AS t"
            sides = [psql(world.source.dsn("shop"), check_sum), psql(world.target.dsn("shop", world.to_target.port), check_sum)]
            different += sides[0] != sides[1]
    return {"differences_told": different}


def copy(world, name, users, options=""):
    source = ["psql", "-qX", "-v", "ON_ERROR_STOP=1", world.source.dsn("shop"), "-c", f"COPY ({rows(name, users)}) TO STDOUT"]
    target = ["psql", "-qX", "-v", "ON_ERROR_STOP=1", world.target.dsn("shop", world.to_target.port), "-c", f"COPY {name} FROM STDIN"]
    reader = subprocess.Popen(source, stdout=subprocess.PIPE, env=environment())
    writer = subprocess.Popen(target, stdin=reader.stdout, env=environment(PGOPTIONS=options))
    reader.stdout.close()
    if reader.wait() or writer.wait():
        sys.exit(f"copy of {name} broke")


def rows(name, users):
    users = f"SELECT id FROM users WHERE region = 'eu' AND {users}"
    orders = f"SELECT id FROM orders WHERE user_id IN ({users})"
    return {
        "users": f"SELECT * FROM users WHERE id IN ({users})",
        "orders": f"SELECT * FROM orders WHERE user_id IN ({users})",
        "items": f"SELECT * FROM items WHERE order_id IN ({orders})",
    }[name]


def replication(world):
    users = world.users
    tables = f"users WHERE (id <= {users}), orders WHERE (user_id <= {users}), items WHERE (user_id <= {users})"
    world.source.sql("flat", f"CREATE PUBLICATION move FOR TABLE {tables}")
    # The target's server reaches the source over the link; this script stands beside the target.
    world.target.sql("flat", f"CREATE SUBSCRIPTION move CONNECTION '{world.source.dsn('flat', world.to_source.port)}' PUBLICATION move")
    while world.target.sql("flat", "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'") != "0":
        time.sleep(0.05)
    catch_up(world)


def catch_up(world):
    """Until the target has what the source has written by now."""
    position = world.source.sql("flat", "SELECT pg_current_wal_lsn()")
    behind = f"SELECT count(*) FROM pg_stat_replication WHERE application_name = 'move' AND replay_lsn >= '{position}'"
    while world.source.sql("flat", behind) == "0":
        time.sleep(0.05)


def end_replication(world):
    world.target.sql("flat", "DROP SUBSCRIPTION IF EXISTS move")
    world.source.sql("flat", "DROP PUBLICATION IF EXISTS move")


def empty_target(world):
    world.target.sql("postgres", "DROP DATABASE whole")
    world.target.sql("postgres", "CREATE DATABASE whole")


def pgcopydb(world):
    if not shutil.which("pgcopydb"):
        raise Unavailable("pgcopydb is not installed")
    directory = world.work / "pgcopydb"
    shutil.rmtree(directory, ignore_errors=True)
    ends = ["--source", uri(world.source.port, "whole"), "--target", uri(world.to_target.port, "whole"), "--dir", directory]
    check(subprocess.run(["pgcopydb", "clone", *ends, "--no-owner", "--no-acl"], capture_output=True, text=True, env=environment()))


REGIONS = """
[product]
name = "shop"
[ssh]
user = "nobody"
known_hosts = "known_hosts"
identity = "env:NONE"
[regions.home]
location = "ash"
traffic = 1.0
cluster = "us"
url = "https://shop.example"
[regions.home.hosts.web-1]
address = "203.0.113.7"
tls = false
[clusters.us]
primary = { name = "us-primary", location = "ash", dsn = "env:US_DSN" }
standbys = []
[clusters.eu]
primary = { name = "eu-primary", location = "fsn1", dsn = "env:EU_DSN" }
standbys = []
[migration]
from = "us"
to = "eu"
root = "users"
users = "region = 'eu'"
route_cache_ttl = "2s"
"""


class Tool:
    """A call of migrate-eu-users, and how much memory it took at most."""

    def __init__(self, world, *words, **more):
        ends = {"US_DSN": uri(world.source.port, "ours"), "EU_DSN": uri(world.to_target.port, "ours")}
        command = [world.migrate, *words, "--config", world.work / "regions.toml", "--format", "json"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **ends, **more}
        )
        world.tools.append(self)
        self.memory_kb = 0
        # The kernel's own maximum of a child that has ended includes this script, from between fork and exec.
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()

    def watch(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status")
        while True:
            try:
                highest = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
            except OSError:
                return
            if not highest:  # it has ended, and nobody has asked for its exit code yet
                return
            self.memory_kb = max(self.memory_kb, int(highest[0].split()[1]))
            time.sleep(0.02)

    def ends_within(self, seconds):
        """Kills it when it does not."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True

    def said(self, also=()):
        """Ends the benchmark where the tool neither says `proceed` nor ends with a code of `also`."""
        out, err = self.process.communicate()
        self.watcher.join()
        if self.process.returncode not in (0, *also):
            sys.exit(f"{self.process.args} ended {self.process.returncode}:\n{out}{err}")
        return json.loads(out)

    def kill(self):
        """Nothing, when it is over."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.communicate()
            self.watcher.join()


def install(world, template="shop"):
    """Fence and plan are there before a move begins; neither is part of what is measured."""
    world.drop("ours")
    for server in world.servers:
        server.sql("postgres", f"CREATE DATABASE ours TEMPLATE {template}")
    (world.work / "regions.toml").write_text(REGIONS)
    Tool(world, "install").said()
    for server in world.servers:
        server.sql("ours", "VACUUM ANALYZE")
    world.plan = Tool(world, "plan").said()["result"]["plan"]["hash"]


def ours(world, lanes, runners):
    words = ["run", "--plan", world.plan] + (["--lanes", str(lanes)] if lanes else [])
    runners = [Tool(world, *words) for _ in range(runners)]
    for runner in runners:
        runner.said()
    return {"memory_mb": max(runner.memory_kb for runner in runners) / 1024}


class Contender:
    """How to run one, in which database, what it needs before, and what to wait for once the application stands still.
    A run may return facts of its own. `rounds` keeps `--rounds` within half an hour for all: at most so many without writes,
    with writes, and with writes in slow transactions."""

    def __init__(self, run, database="shop", prepare=None, settle=None, after=None, verified="no", rounds=(None, 1, 0)):
        self.run, self.database, self.prepare, self.verified = run, database, prepare, verified
        self.settle, self.after, self.rounds = settle, after, rounds
        self.fenced = database == "ours"


def our_way(lanes, runners, **more):
    return Contender(lambda world: ours(world, lanes, runners), "ours", install, verified="sha256 of bytes", **more)


CONTENDERS = {
    "pipe": Contender(pipe),
    "pipe-no-checks": Contender(pipe_no_checks),
    "batches-md5": Contender(batches_md5, verified="md5 of row text", rounds=(1, 1, 0)),
    "replication": Contender(replication, "flat", settle=catch_up, after=end_replication),
    "pgcopydb": Contender(pgcopydb, "whole", empty_target),
    "ours": our_way(None, 1, rounds=(None, None, 3)),
    "ours-1-lane": our_way(1, 1),
    "ours-4-lanes": our_way(4, 1),
    "ours-2-runners": our_way(2, 2),
}
