"""What the fence costs a writer: pgbench with transactions of two inserts, with and without it, on the same tables.

Commits do not wait for the disk here, because that wait would hide what the fence costs.
"""

import os
import re
import statistics
import subprocess

from .contenders import install
from .moves import Span, tell, undisturbed
from .servers import postgres

CLIENTS = (1, 16, 48)
# Of one measurement: about half a second.
TRANSACTIONS = 2400
# The two tables, each with the insert of one row that belongs to the user `:user`.
INSERTS = {
    "direct owner": ("orders", "INSERT INTO orders VALUES (nextval('bench_ids'), :user, now(), 1, 'bench');"),
    "grandchild": (
        "items",
        "INSERT INTO items VALUES (nextval('bench_ids'), :user * 100 + 1, '11f0e0c0-0000-4000-8000-000000000000', 1, 1, NULL);",
    ),
}
TRIGGERS = ("~regionwise", "~regionwise_s")
# `watched`: as at the target between a move and its purge, where the fence notes what is written.
STATES = ("bare", "fenced", "watched")


def measure(world):
    with world.link(0):
        install(world)
        prepare(world)
        shares, costs = [], []
        for kind in INSERTS:
            for pattern in ("one hot user", "many users"):
                for clients in CLIENTS:
                    rounds = [undisturbed(world, lambda: compare(world, kind, pattern, clients)) for _ in range(world.args.rounds)]
                    shares += [one["foreign"] for one in rounds]
                    costs.append({"kind": kind, "users": pattern, "clients": clients} | cost(rounds))
                    tell(f"fence, {kind}, {pattern}, {clients} clients", rounds[-1])
        members = multixacts(world)
        world.drop("ours")
    return {"costs": costs, "multixact_members": members, "foreign_share": max(shares)}


def prepare(world):
    world.source.sql("ours", "CREATE SEQUENCE bench_ids START 1000000000")
    routes = "INSERT INTO regionwise.route (usr, state) SELECT id, 'home' FROM users ON CONFLICT DO NOTHING"
    world.source.sql("ours", routes)
    for kind, (_, insert) in INSERTS.items():
        for pattern in ("one hot user", "many users"):
            user = "1" if pattern == "one hot user" else f"random(1, {world.users})"
            script(world, kind, pattern).write_text(f"\\set user {user}\nBEGIN;\n{insert}\n{insert}\nCOMMIT;\n")


def script(world, kind, pattern):
    return world.work / f"{kind} {pattern}.sql".replace(" ", "-")


def compare(world, kind, pattern, clients):
    """The states right after each other, so that a slower minute meets each of them."""
    table, _ = INSERTS[kind]
    whole, found = Span(world), {}
    for state in STATES:
        setting = "DISABLE" if state == "bare" else "ENABLE ALWAYS"
        turn = [f"ALTER TABLE {table} {setting} TRIGGER \"{trigger}\"" for trigger in TRIGGERS]
        watch = f"UPDATE regionwise.route SET watch = {state == 'watched'} WHERE watch <> {state == 'watched'}"
        world.source.sql("ours", "; ".join([*turn, watch]))
        found[state] = bench(world, script(world, kind, pattern), clients)
    world.source.sql("ours", "TRUNCATE regionwise.dirty")
    return found | whole.end()


def bench(world, path, clients, options=""):
    """Transactions per second, and microseconds of latency and of the server's processors for each."""
    cpu = world.source.cpu()
    command = [postgres() / "pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", "1", "-t", str(TRANSACTIONS // clients), "-f", path,
               "-h", "127.0.0.1", "-p", str(world.source.port), "-U", "postgres", "ours"]  # fmt: skip
    settings = {**os.environ, "PGOPTIONS": f"-c synchronous_commit=off {options}", "PGSSLMODE": "disable", "PGGSSENCMODE": "disable"}
    done = subprocess.run(command, capture_output=True, text=True, env=settings)
    rate = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
    if done.returncode != 0 or not rate:
        raise RuntimeError(f"pgbench ended {done.returncode}:\n{done.stdout}{done.stderr}")
    rate = float(rate[1])
    return {"rate": rate, "latency_us": clients * 1e6 / rate, "cpu_us": (world.source.cpu() - cpu) * 1e6 / TRANSACTIONS}


def cost(rounds):
    """Medians of the differences within a round."""
    middle = lambda one: statistics.median(map(one, rounds))
    result = {"rounds": len(rounds), "bare_per_second": round(middle(lambda one: one["bare"]["rate"]))}
    for state, base in (("fenced", "bare"), ("watched", "fenced")):
        result[state] = {
            "per_second": round(middle(lambda one: one[state]["rate"])),
            "added_latency_us": round(middle(lambda one: one[state]["latency_us"] - one[base]["latency_us"])),
            "added_cpu_us": round(middle(lambda one: one[state]["cpu_us"] - one[base]["cpu_us"])),
            "throughput_lost": round(middle(lambda one: 1 - one[state]["rate"] / one[base]["rate"]), 3),
        }
    return result


def multixacts(world):
    """Members that the fence alone makes in READ COMMITTED: the foreign keys, which make their own on a hot user, are silent."""
    members = "CHECKPOINT; SELECT next_multi_offset FROM pg_control_checkpoint()"
    turn = [f"ALTER TABLE orders ENABLE ALWAYS TRIGGER \"{trigger}\"" for trigger in TRIGGERS]
    world.source.sql("ours", "; ".join([*turn, "UPDATE regionwise.route SET watch = false WHERE watch"]))
    before = int(world.source.sql("ours", members))
    bench(world, script(world, "direct owner", "one hot user"), 48, "-c session_replication_role=replica")
    return {"transactions": TRANSACTIONS, "members": int(world.source.sql("ours", members)) - before}
