"""What is required of migrate-eu-users, what this run measured of it, and whether that is enough.

`met` is None where this run did not measure it."""

OURS = "ours"
# How much slower a user may become when there are four times as many, for growth to count as linear.
LINEAR = 1.25
MEMORY_MB = 64


def judge(document):
    found = Found(document)
    return [
        *speed(found), *stalls(found), lost_writes(found), death(document.get("death")), *fence(document.get("fence")),
        memory(found), *extremes(document), linear(document.get("growth")),
    ]  # fmt: skip


class Found:
    def __init__(self, document):
        self.document = document
        self.results = [result for result in document["results"] if "unavailable" not in result]

    def one(self, contender, delay, writes=False, slow=False):
        matches = lambda result: (
            result["contender"] == contender and result["round_trip_ms"] == delay
            and bool(result["writes"]) == writes and bool(result["transaction_ms"]) == slow
        )  # fmt: skip
        return next(filter(matches, self.results), None)


def target(what, required, measured, met):
    return {"what": what, "required": required, "measured": measured, "met": met}


def unmeasured(what, required):
    return target(what, required, "not measured in this run", None)


def speed(found):
    yield share(found, "verified and online, of the unverified pipe, 0 ms", 0, 0.8, False)
    yield share(found, "the same while the application writes", 0, 0.8, True)
    yield share(found, "verified and online, of the unverified pipe, 90 ms", 90, 1.5, False)
    what, required = "12,000 users with 31 rows each, 90 ms", "at most 20 s"
    run = found.one(OURS, 90)
    if not run or found.document["users"] != 12_000:
        yield unmeasured(what, required)
    else:
        yield target(what, required, f"{run['seconds']:.1f} s, slowest {run['slowest']:.1f} s", run["slowest"] <= 20)


def share(found, what, delay, least, writes):
    ours, pipe = found.one(OURS, delay, writes), found.one("pipe", delay, writes)
    required = f"at least {least} x"
    if not ours or not pipe:
        return unmeasured(what, required)
    ratio = ours["rows_per_second"] / pipe["rows_per_second"]
    return target(what, required, f"{ratio:.2f} x", ratio >= least)


def stalls(found):
    for what, delay, users, limit, slow in (
        ("stall, unchanged users, 0 ms", 0, "unchanged", 50, False),
        ("stall, changed users, 0 ms", 0, "changed", 50, False),
        ("stall, unchanged users, 90 ms", 90, "unchanged", 300, False),
        ("stall, changed users, 90 ms", 90, "changed", 500, False),
        ("stall, transactions of 150 ms, unchanged users, 90 ms", 90, "unchanged", 1000, True),
        ("stall, transactions of 150 ms, changed users, 90 ms", 90, "changed", 1000, True),
    ):
        run = found.one(OURS, delay, writes=True, slow=slow)
        waits = run["stalls"][users] if run else None
        required = f"p99 at most {limit} ms"
        if not waits:
            yield unmeasured(what, required)
        else:
            measured = f"p99 {waits['p99_ms']} ms, maximum {waits['max_ms']} ms, {waits['n']} writes"
            yield target(what, required, measured, waits["p99_ms"] <= limit)


def lost_writes(found):
    runs = [result for result in found.results if result["contender"].startswith("ours") and result["writes"]]
    if not runs:
        return unmeasured("lost writes", "none")
    lost, promised = (sum(run["ledger"][key] for run in runs) for key in ("lost", "promised"))
    updates = sum(run["ledger"]["lost_updates"] for run in runs)
    given_up = sum(run["ledger"]["given_up"] for run in runs)
    measured = f"{lost} rows and {updates} increments of {promised:,} promised writes, {given_up} given up"
    return target("lost writes", "none", measured, lost == updates == given_up == 0)


def death(found):
    what, required = "mover dead between the two commits", "taken over within 2 s, then the check again"
    if not found:
        return unmeasured(what, required)
    measured = f"taken over after {found['claimed_seconds']} s, its users write after {found['written_seconds']} s, slowest {found['slowest_seconds']} s"
    # A look by psql, some 20 ms, is in it.
    return target(what, required, measured, found["claimed_seconds"] <= 2)


def fence(found):
    for what, kind, clients, key, limit in (
        ("fence, direct owner, one client: added to a transaction of two inserts", "direct owner", 1, "added_latency_us", 60),
        ("fence, grandchild, one client: added to a transaction of two inserts", "grandchild", 1, "added_latency_us", 100),
        ("fence, direct owner, 48 clients, one hot user: throughput lost", "direct owner", 48, "throughput_lost", 0.35),
    ):
        required = f"at most {limit:.0%}" if key == "throughput_lost" else f"at most {limit} us"
        if not found:
            yield unmeasured(what, required)
            continue
        case = next(c for c in found["costs"] if (c["kind"], c["users"], c["clients"]) == (kind, "one hot user", clients))
        value = case["fenced"][key]
        yield target(what, required, f"{value:.0%}" if key == "throughput_lost" else f"{value} us", value <= limit)
    what = "multixact members that the fence makes, READ COMMITTED, 48 clients, one hot user"
    if not found:
        yield unmeasured(what, "none")
    else:
        used = found["multixact_members"]
        yield target(what, "none", f"{used['members']} in {used['transactions']:,} transactions", used["members"] == 0)


def memory(found):
    what, required = "memory, 12,000 users", f"at most {MEMORY_MB} MB"
    runs = [result["memory_mb"] for result in found.results if result["memory_mb"]]
    if not runs or found.document["users"] != 12_000:
        return unmeasured(what, required)
    return target(what, required, f"{max(runs)} MB", max(runs) <= MEMORY_MB)


def extremes(document):
    found = document.get("extreme")
    if not found:
        yield unmeasured("memory, 1,000,000 users", f"at most {MEMORY_MB} MB")
        yield unmeasured("memory, one user with 5,000,000 rows under 500 writes/s", f"at most {MEMORY_MB} MB")
        return
    for run in found:
        what = f"memory, {run['users']:,} users with {run['rows']:,} rows ({run['what']})"
        measured = f"{run['memory_mb']} MB, {'done' if run['ended'] else 'not done'} after {run['seconds']:.0f} s"
        yield target(what, f"at most {MEMORY_MB} MB", measured, run["ended"] and run["memory_mb"] <= MEMORY_MB)


def linear(found):
    what, required = "time grows linearly", f"four times the users take at most {LINEAR} times as long for each"
    if not found:
        return unmeasured(what, required)
    if not all(run["ended"] for run in found):
        return target(what, required, "not done within the limit", False)
    per_user = [run["seconds"] / run["users"] for run in found]
    ratio = per_user[-1] / per_user[-2]
    return target(what, required, f"{ratio:.2f} times, from {found[-2]['users']:,} to {found[-1]['users']:,} users", ratio <= LINEAR)
