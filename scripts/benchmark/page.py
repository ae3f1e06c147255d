"""What was measured, as tables, and as the page that the documentation keeps."""

import sys

from .moves import FOREIGN


def text(document):
    parts = [("moves", moves(document["results"])), *extras(document), ("targets", targets(document["targets"]))]
    return "\n\n".join(f"{title}\n{plain(rows)}" for title, rows in parts)


def plain(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def markdown(rows):
    head, *rest = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rest])


def moves(results):
    """One table for all: what a kind of run does not have is left out."""
    writing = any(result["writes"] for result in results)
    head = ["contender", "round trip", "seconds", "spread", "rounds", "rows/s", "users/s", "CPU s", "MB on wire", "memory MB"]
    found = [head + (["lost", "stopped s", "longest write ms"] if writing else []) + ([] if all(r["writes"] for r in results) else ["right"])]
    for result in results:
        start = [result["contender"] + (", slow" if result["transaction_ms"] else ""), f"{result['round_trip_ms']} ms"]
        if "unavailable" in result:
            found.append(start + ["not measured"] + ["-"] * (len(found[0]) - 3))
            continue
        ledger = result.get("ledger")
        row = start + [
            f"{result['seconds']:.1f}", f"{result['fastest']:.1f} to {result['slowest']:.1f}", str(result["rounds"]),
            f"{result['rows_per_second']:,}", f"{result['users_per_second']:,}", f"{result['cpu_seconds']:.1f}",
            f"{result['wire_mb']:.0f}", f"{result['memory_mb']:.0f}" if result["memory_mb"] else "-",
        ]  # fmt: skip
        if writing:
            row += [
                f"{ledger['lost']:,} of {ledger['promised']:,}", f"{result['stopped_seconds']:.2f}", f"{ledger['longest_write_ms']:.0f}",
            ] if ledger else ["-"] * 3  # fmt: skip
        if "right" in found[0]:
            row.append({True: "yes", False: "NO", None: "-"}[result["right"]])
        found.append(row)
    return found


def stalls(results):
    found = [["contender", "round trip", "transactions", "users", "writes", "p50 ms", "p99 ms", "max ms"]]
    for result in results:
        for users, waits in result.get("stalls", {}).items():
            length = f"{result['transaction_ms']} ms" if result["transaction_ms"] else "one statement"
            figures = [str(waits[key]) for key in ("n", "p50_ms", "p99_ms", "max_ms")] if waits else ["none", "-", "-", "-"]
            found.append([result["contender"], f"{result['round_trip_ms']} ms", length, users, *figures])
    return found


def extras(document):
    if any("stalls" in result for result in document["results"]):
        yield "stalls", stalls(document["results"])
    if document.get("death"):
        yield "death", death(document["death"])
    if document.get("fence"):
        yield "fence", fence(document["fence"]["costs"])
    if document.get("growth"):
        yield "growth", growth(document["growth"])
    if document.get("extreme"):
        yield "extreme", growth(document["extreme"])


def death(found):
    return [
        ["round trip", "rounds", "taken over after s", "written after s", "slowest s"],
        [f"{found['round_trip_ms']} ms", *(str(found[key]) for key in ("rounds", "claimed_seconds", "written_seconds", "slowest_seconds"))],
    ]


def fence(costs):
    head = ["rows of", "users", "clients", "bare/s", "fenced/s", "lost", "added us", "added CPU us", "watched: lost more", "added us", "added CPU us"]
    found = [head]
    for case in costs:
        fenced, watched = case["fenced"], case["watched"]
        figures = lambda one: [f"{one['throughput_lost']:.0%}", str(one["added_latency_us"]), str(one["added_cpu_us"])]
        rates = [f"{case['bare_per_second']:,}", f"{fenced['per_second']:,}"]
        found.append([case["kind"], case["users"], str(case["clients"]), *rates, *figures(fenced), *figures(watched)])
    return found


def growth(runs):
    found = [["users", "what", "seconds", "us per user", "memory MB", "lost", "stall max ms"]]
    for run in runs:
        waits = [one["max_ms"] for one in run.get("stalls", {}).values() if one]
        took = f"{run['seconds']:.1f}" if run["ended"] else f"not done after {run['seconds']:.0f}"
        found.append([
            f"{run['users']:,}", run["what"], took, f"{run['seconds'] * 1e6 / run['users']:.0f}", f"{run['memory_mb']:.0f}",
            f"{run['lost']:,} of {run['promised']:,}" if "lost" in run else "-", f"{max(waits):.0f}" if waits else "-",
        ])  # fmt: skip
    return found


def targets(judged):
    words = {True: "met", False: "NOT met", None: "-"}
    return [["target", "required", "measured", ""], *([one["what"], one["required"], one["measured"], words[one["met"]]] for one in judged)]


PAGE = """# Moving {users:,} users, side by side

Written by `scripts/bench migrate {words}`; its `--help` says what each
contender is. {users:,} users with {rows:,} rows move between two PostgreSQL {postgres} servers, {others:,} other users stay. Both
servers, the contender and the link share one machine with {cores} cores ({cpu}), so only the ratios within this
page mean anything. A figure is the median of its rounds, taken in turns; contenders that would take most of the time have
fewer of them, see `rounds`. In no run did other programs have more than {foreign:.0%} of the machine. fsync is on, caches are
warm, the target has all indexes and foreign keys from the start (not for pgcopydb, which makes them itself). {missing}

## Targets
What is required of `migrate-eu-users`, with as many lanes as it takes by itself, and what this run measured.

{targets}

{bounds}

## Nobody writes
`right`: what lies at the target equals the source, row by row, compared afterwards. `memory MB`: the most that a process of
ours had of its own, by the kernel's count.

{quiet}

## {writes} promised writes per second
`lost`: promised writes, of all promised writes, that the target does not have when the contender says that it is
done. A contender without a fence cannot know of them; the application must stand still for the whole run, or until
replication has caught up (`stopped s`). `slow`: fewer writes, each in a transaction that stays open for 150 ms.

{writing}
"""

SECTIONS = {
    "stalls": """
## What writers waited for
From the first try of a write to its promise, for writes that met the fence: they were refused, and their first try came
before the target had committed that the user lives there. Refused writers try again every 2 ms. Half of the writes go to
every 120th user; `changed` users had written since they were copied when the mover first wanted to let them go. A
transaction's own 150 ms are in its figure. A writer who only waited for a lock, and was then served, is not among them;
`longest write ms` above has it.

{table}
""",
    "death": """
## A mover dies between the two commits
Killed when the source had let its users go and the target had not taken them over; another runner was at work already.

{table}
""",
    "fence": """
## What the fence costs a writer
pgbench with transactions of two inserts, all states of the fence in turns on the same tables, median of the differences; client and
server share the cores, commits do not wait for the disk. `added us`: to the latency; `added CPU us`: to the server's
processor time. `watched`: what comes on top at the target between a move and its purge, where the fence notes each row.

{table}
""",
    "growth": """
## Growth
One round each, at 0 ms, nobody writes, four lanes.

{table}
""",
    "extreme": """
## Extremes
One round each, at 0 ms, four lanes.

{table}
""",
}


def disturbance(document):
    """The largest share that other programs had in a run, and in which."""
    runs = [
        (result["foreign_share"], f"{result['contender']} at {result['round_trip_ms']} ms with {result['writes']} writes/s")
        for result in document["results"]
        if "unavailable" not in result
    ]
    for part in ("growth", "extreme"):
        runs += [(run["foreign"], f"{part}, {run['users']} users") for run in document.get(part) or []]
    runs += [(document[part]["foreign_share"], part) for part in ("death", "fence") if document.get(part)]
    return max(runs, default=(1, "no run at all"))


def publish(path, document, words):
    """Others will take the page's numbers for the contenders', so it is not written from disturbed runs."""
    share, run = disturbance(document)
    if share > FOREIGN:
        sys.exit(f"cannot write {path}: other programs had {share:.0%} of the machine in a run ({run}), at most {FOREIGN:.0%} is accepted")
    path.write_text(page(document, words))


def bounds(document):
    """What a speed cannot pass on this machine."""
    quiet = {(result["contender"], result["round_trip_ms"]): result.get("cpu_seconds")
             for result in document["results"] if not result["writes"]}  # fmt: skip
    ours, pipe, cores = quiet.get(("ours", 0)), quiet.get(("pipe", 0)), document["machine"]["cores"]
    if not ours or not pipe:
        return ""
    return (
        f"What bounds the speed here: mover, both servers and the link share {cores} cores. At 0 ms a move takes {ours:.1f} s of processor\n"
        f"time, the pipe {pipe:.1f} s, so a move cannot be done in less than {ours / cores:.1f} s."
    )


def page(document, words):
    results = document["results"]
    measured = [result for result in results if "unavailable" not in result]
    missing = sorted({result["contender"] for result in results} - {result["contender"] for result in measured})
    part = lambda writing: markdown(moves([result for result in measured if bool(result["writes"]) == writing]))
    start = PAGE.format(
        **document["machine"], users=document["users"], others=document["others"], rows=document["rows"], words=words,
        writes=max(result["writes"] for result in results), foreign=disturbance(document)[0], targets=markdown(targets(document["targets"])),
        missing=f"Not measured: {', '.join(missing)}." if missing else "", quiet=part(False), writing=part(True),
        bounds=bounds(document),
    )  # fmt: skip
    rest = [SECTIONS[name].format(table=markdown(rows)) for name, rows in extras(document)]
    return "".join([start, *rest]).replace(" \n", "\n")
