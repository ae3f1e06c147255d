"""How time and memory grow with the users, and with the rows of one user."""

from .contenders import Tool, install
from .moves import Ledger, Load, Span, stalls, tell, undisturbed

SIZES = (3_000, 12_000, 48_000)
LIMIT_SECONDS = 1500


def measure(world):
    """The same move at a quarter and at four times the users."""
    found = []
    with world.link(0):
        for users in [max(4, world.args.users * size // 12_000) for size in SIZES]:
            world.make("grown", users, 0)
            found.append(undisturbed(world, lambda: move(world, "grown")) | {"users": users, "what": "31 rows per user"})
            tell(f"{users} users", found[-1])
            world.drop("ours", "grown")
    return found


def measure_extremes(world):
    """A million users, and one user with five million rows who goes on writing."""
    share = world.args.users / 12_000
    found = []
    with world.link(0):
        for what, users, orders, load in (
            ("4 rows per user", int(1_000_000 * share), 1, None),
            ("all of one user, under 500 writes/s", 1, int(1_666_666 * share), Load(500, 16)),
        ):
            world.make("extreme", users, 0, orders=orders)
            run = move(world, "extreme", load, users)
            found.append(run | {"users": users, "rows": users * (1 + orders * 3), "what": what})
            tell(what, run)
            world.drop("ours", "extreme")
    return found


def move(world, database, load=None, users=None):
    install(world, database)
    before = world.users
    world.users = users or before
    ledger = Ledger(world, "ours", load) if load else None
    span = Span(world, ledger)
    try:
        tool = Tool(world, "run", "--plan", world.plan, "--lanes", "4")
        # Who never stops writing and has too many rows is set aside (10).
        ended = tool.ends_within(LIMIT_SECONDS) and tool.said(also=(10,))["verdict"] == "proceed"
        run = span.end() | {"memory_mb": round(tool.memory_kb / 1024, 1), "ended": ended}
        if ledger and ended:
            promised, _ = ledger.end(lambda: None)
            run |= {"lost": promised["lost"], "promised": promised["promised"], "stalls": stalls([promised])}
        return run
    finally:
        world.users = before
        if ledger:
            ledger.kill()
