"""Moves, measured: what each took, what it did to writers, and whether other programs were in the way."""

import dataclasses
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time

from .contenders import CONTENDERS, Unavailable
from .servers import busy
from .world import ROWS_PER_USER

# Share of the machine that other programs may have during a run.
FOREIGN = 0.1


@dataclasses.dataclass(frozen=True)
class Load:
    """What the application does meanwhile."""

    writes_per_second: int
    clients: int
    # How long each of its transactions stays open after its write.
    transaction_ms: int = 0

    def __str__(self):
        long = f" in transactions of {self.transaction_ms} ms" if self.transaction_ms else ""
        return f"{self.writes_per_second} writes/s{long}"


def slow(writes):
    """Few enough writes that the clients of transactions of 150 ms keep up."""
    return Load(min(writes, 200), 40, 150)


def measure_all(world):
    """Everybody without writers at each delay, then with writers: the others at the longest, ours and the pipe at each."""
    args, results = world.args, []
    for delay in args.delays:
        results += measure(world, args.only, delay, None)
    if not args.writes:
        return results
    for delay in args.delays:
        near = [name for name in args.only if CONTENDERS[name].fenced or name == "pipe"]
        names = args.only if delay == max(args.delays) else near
        results += measure(world, names, delay, Load(args.writes, 16))
        patient = [name for name in args.only if CONTENDERS[name].rounds[2] != 0]
        results += measure(world, patient, delay, slow(args.writes))
    return results


def measure_missing(world, results):
    """The results with those measured that could not be had before. Whether any was measured."""
    missing = [at for at, result in enumerate(results) if "unavailable" in result]
    for at in missing:
        before = results[at]
        load = Load(before["writes"], 16) if before["writes"] else None
        results[at] = measure(world, [before["contender"]], before["round_trip_ms"], load)[0]
    return bool(missing)


def measure(world, names, delay, load):
    """All contenders in turns, so that a slower minute of the machine meets each of them."""
    runs, missing = {name: [] for name in names}, {}
    kind = 0 if load is None else 2 if load.transaction_ms else 1
    with world.link(delay):
        for number in range(world.args.rounds):
            for name in names:
                limit = CONTENDERS[name].rounds[kind]
                if name in missing or (limit is not None and number >= limit):
                    continue
                try:
                    runs[name].append(undisturbed(world, lambda: once(world, CONTENDERS[name], load)))
                    tell(f"{name}, {delay} ms, {load or 'nobody writes'}", runs[name][-1])
                except Unavailable as reason:
                    missing[name] = str(reason)
    return [summary(world, name, runs[name], missing.get(name), delay, load) for name in names]


def tell(what, run):
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what}: {run['seconds']:.2f} s, other programs {run['foreign']:.0%}\n")


def summary(world, name, runs, missing, delay, load):
    contender = CONTENDERS[name]
    result = {"contender": name, "round_trip_ms": delay, "verified": contender.verified,
              "writes": load.writes_per_second if load else 0, "transaction_ms": load.transaction_ms if load else 0}  # fmt: skip
    if missing:
        return {**result, "unavailable": missing}
    seconds = [run["seconds"] for run in runs]
    middle = statistics.median(seconds)
    told = [run["told"] for run in runs]
    result |= {
        "rounds": len(runs), "seconds": round(middle, 2), "fastest": round(min(seconds), 2), "slowest": round(max(seconds), 2),
        "rows_per_second": round(world.users * ROWS_PER_USER / middle), "users_per_second": round(world.users / middle),
        "cpu_seconds": round(statistics.median(run["cpu"] for run in runs), 2),
        "wire_mb": round(statistics.median(run["bytes"] for run in runs) / 1e6, 1),
        "foreign_share": max(run["foreign"] for run in runs),
        "right": None if load else all(run["right"] for run in runs),
        "differences_told": sum(facts.get("differences_told", 0) for facts in told),
        "memory_mb": round(max(facts["memory_mb"] for facts in told), 1) if contender.fenced else None,
    }  # fmt: skip
    if load:
        result |= {
            "ledger": ledgers([run["ledger"] for run in runs]),
            "stopped_seconds": round(max(run["stopped"] for run in runs), 2),
        }
        if contender.fenced:
            result["stalls"] = stalls([run["ledger"] for run in runs])
    return result


def ledgers(runs):
    """Of all rounds together."""
    sums = {key: sum(run[key] for run in runs) for key in ("promised", "refused", "given_up", "lost", "lost_updates")}
    return {**sums, "longest_write_ms": round(max(run["wait_max_us"] for run in runs) / 1000, 1)}


def stalls(runs):
    """Waits of the writes that met the fence, of all rounds together."""
    return {
        users: percentiles([us / 1000 for run in runs for us in run["stalls_us"][users]])
        for users in ("unchanged", "changed")
    }


def percentiles(values):
    if not values:
        return None
    ordered = sorted(values)
    # The smallest value that at least this share does not exceed.
    at = lambda percent: ordered[-(-len(ordered) * percent // 100) - 1]
    return {"n": len(ordered), "p50_ms": round(at(50), 1), "p99_ms": round(at(99), 1), "max_ms": round(ordered[-1], 1)}


def undisturbed(world, run):
    """A run in which other programs had the machine is no measurement: it is done again, and the best of a few counts."""
    best = None
    for _ in range(world.args.tries):
        if world.args.tries > 1:
            quiet()
        found = run()
        if best is None or found["foreign"] < best["foreign"]:
            best = found
        if best["foreign"] <= FOREIGN:
            break
    return best


def quiet():
    """Waits a while for other programs to stop."""
    for _ in range(30):
        before, began = busy(), time.monotonic()
        time.sleep(0.5)
        if busy() - before < FOREIGN * os.cpu_count() * (time.monotonic() - began):
            return


class Span:
    """From now on: time, processor time of servers and contender, and the share that other programs had."""

    def __init__(self, world, ledger=None):
        self.world, self.ledger = world, ledger
        self.cpu, self.all_cpu, self.helpers, self.began = spent(world), busy(), world.helpers(ledger), time.monotonic()

    def end(self):
        took, cpu, all_cpu = time.monotonic() - self.began, spent(self.world) - self.cpu, busy() - self.all_cpu
        foreign = all_cpu - cpu - (self.world.helpers(self.ledger) - self.helpers)
        return {"seconds": took, "cpu": cpu, "foreign": round(max(0, foreign) / (took * os.cpu_count()), 3)}


def once(world, contender, load):
    world.reset(contender)
    expected = None if load else world.content(world.source, contender)
    ledger = Ledger(world, contender.database, load) if load else None
    world.crossed()
    span = Span(world, ledger)
    try:
        told = contender.run(world) or {}
        run = span.end() | {"told": told, "bytes": world.crossed()}
        promised, stopped = ledger.end(lambda: contender.settle and contender.settle(world)) if ledger else (None, 0)
    finally:
        if ledger:
            ledger.kill()
        if contender.after:
            contender.after(world)
    right = None if load else world.content(world.target, contender) == expected
    return run | {"right": right, "ledger": promised, "stopped": stopped}


def spent(world):
    tools = resource.getrusage(resource.RUSAGE_CHILDREN)
    return tools.ru_utime + tools.ru_stime + sum(server.cpu() for server in world.servers)


class Ledger:
    def __init__(self, world, database, load):
        numbers = [world.users, load.clients, load.writes_per_second, load.transaction_ms]
        command = [world.examples / "ledger", world.source.dsn(database), world.target.dsn(database), *map(str, numbers)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "writing\n":
            sys.exit("the ledger did not start")

    def end(self, settle):
        """Stops the writers; what `settle` waits for is a time in which nobody can write."""
        began = time.monotonic()
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.process.stdout.readline()
        settle()
        stopped = time.monotonic() - began
        out, _ = self.process.communicate("\n")
        if self.process.returncode != 0:
            sys.exit("the ledger broke")
        return json.loads(out), stopped

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
