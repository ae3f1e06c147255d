"""A mover dies between the two commits: its users are released by the source and not taken over by the target."""

import statistics
import subprocess
import time

from .contenders import Tool, install
from .moves import Span, tell, undisturbed

# How many users the plan leaves to move: enough for several batches.
USERS = 1000
BETWEEN = "SELECT usr FROM regionwise.route WHERE state = 'staging' ORDER BY usr::bigint LIMIT 1"


def measure(world):
    """Seconds from the death until another runner, which waits already, has the batch, and until a write is taken."""
    deaths = []
    with world.link(max(world.args.delays)):
        for _ in range(world.args.rounds):
            deaths.append(undisturbed(world, lambda: one(world)))
            tell("mover dead between the commits", deaths[-1])
    middle = lambda key: round(statistics.median(death[key] for death in deaths), 2)
    return {
        "round_trip_ms": max(world.args.delays), "rounds": len(deaths), "claimed_seconds": middle("claimed"),
        "written_seconds": middle("written"), "slowest_seconds": round(max(death["written"] for death in deaths), 2),
        "foreign_share": max(death["foreign"] for death in deaths),
    }  # fmt: skip


def one(world):
    world.make_small(USERS)
    install(world, "small")
    held = world.work / "held"
    held.unlink(missing_ok=True)
    span = Span(world)
    words = ["run", "--plan", world.plan, "--batch-size", "100", "--lanes", "1"]
    victim = Tool(world, *words, REGIONWISE_HOLD_AT="released", REGIONWISE_HOLD_FILE=str(held))
    until(held.exists)
    heir = Tool(world, *words)
    until(lambda: world.source.sql("ours", "SELECT count(*) FROM regionwise.batch WHERE state = 'open'") == "1")
    user = world.target.sql("ours", BETWEEN)
    token = "SELECT token FROM regionwise.batch WHERE state = 'open'"
    before = world.source.sql("ours", token)
    victim.kill()
    died = time.monotonic()
    # When the batch is done before this looks, it was claimed before.
    until(lambda: world.source.sql("ours", token) != before)
    claimed = time.monotonic() - died
    until(lambda: written(world, user))
    took = time.monotonic() - died
    heir.said()
    return span.end() | {"claimed": claimed, "written": took}


def written(world, user):
    """Whether the target takes a write of the user, as the application sends it."""
    write = f"UPDATE users SET version = version + 1 WHERE id = {user}"
    command = ["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", world.target.dsn("ours"), "-c", write]
    return subprocess.run(command, capture_output=True).returncode == 0


def until(found, patience=60):
    began = time.monotonic()
    while not found():
        if time.monotonic() - began > patience:
            raise TimeoutError(f"waited {patience} s in vain for what a runner does")
        time.sleep(0.005)
