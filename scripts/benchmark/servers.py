"""Two Postgres servers and the link between them, as processes of this machine."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys


class Server:
    def __init__(self, work, name, account):
        self.data, self.account, self.port = work / name, account, free_port()
        self.bin = postgres()
        self.data.mkdir()
        if account:
            shutil.chown(self.data, account, account)
        self.run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        settings = f"""
            port = {self.port}
            listen_addresses = '127.0.0.1'
            unix_socket_directories = ''
            shared_buffers = 512MB
            max_wal_size = 8GB
            checkpoint_timeout = 1h
            wal_level = logical
            autovacuum = off
            track_commit_timestamp = on
            random_page_cost = 1.1
            log_min_messages = fatal
        """
        with open(self.data / "postgresql.conf", "a") as config:
            config.write(settings)
        self.run("pg_ctl", "-w", "-s", "-D", self.data, "-l", self.data / "log", "start")

    def run(self, name, *words):
        command = [self.bin / name, *words]
        if self.account:
            command = ["setpriv", "--reuid", self.account, "--regid", self.account, "--clear-groups", *command]
        check(subprocess.run(command, capture_output=True, text=True, cwd="/"))

    def stop(self):
        self.run("pg_ctl", "-w", "-s", "-m", "immediate", "-D", self.data, "stop")

    def dsn(self, database, port=None):
        return f"host=127.0.0.1 port={port or self.port} user=postgres dbname={database}"

    def sql(self, database, sql):
        return psql(self.dsn(database), sql)

    def cpu(self):
        """Seconds of all its processes, also of those that have ended."""
        postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
        ticks = 0
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(stat.parent.name) == postmaster:
                ticks += sum(map(int, fields[11:15]))
            elif int(fields[1]) == postmaster:
                ticks += sum(map(int, fields[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")


class Delay:
    """A port that leads to a server over the lab's link."""

    def __init__(self, world, server, round_trip):
        command = [world.examples / "delay", f"127.0.0.1:{server.port}", str(round_trip // 2)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def bytes(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait()

def busy():
    """Seconds that all processors have worked so far, for whomever."""
    user, nice, system, _, _, irq, softirq = map(int, open("/proc/stat").readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def cpu_of(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def psql(dsn, sql):
    done = subprocess.run(["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", dsn, "-c", sql], capture_output=True, text=True, env=environment())
    return check(done).stdout.strip()


def check(done):
    if done.returncode != 0:
        sys.exit(f"{done.args} ended {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def environment(**more):
    # Without asking for encryption first, which would cost every psql a round trip.
    return {**os.environ, "PGSSLMODE": "disable", "PGGSSENCMODE": "disable", **more}


def uri(port, database):
    return f"postgres://postgres@127.0.0.1:{port}/{database}?sslmode=disable"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def postgres():
    versions = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return versions[-1]


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    version = subprocess.run([postgres() / "postgres", "--version"], capture_output=True, text=True).stdout.split()[2]
    return {"cores": os.cpu_count(), "cpu": model, "postgres": version}
