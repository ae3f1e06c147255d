"""How small the published binaries are, how fast one starts, and how long a set-up from a cache takes.

    scripts/bench footprint [--format human|json] [--rounds N] [--binaries DIR]

- size: every binary of a release, built and stripped as scripts/release does; 6 MB at most each.
- version: `BINARY --version` from start to end, the median of all binaries and rounds; 10 ms at most.
- set-up: the set-up action's script, with the archive in the tool cache already: checked again and unpacked; 5 s at most.

Without --binaries it builds the profile `dist` for this machine, about 40 s a binary. Ends 1 when a limit is passed.
"""

import argparse
import hashlib
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib

from releasing import archive

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SIZE_MB, VERSION_MS, SET_UP_SECONDS = 6, 10, 5


def main(words):
    parser = argparse.ArgumentParser(prog="scripts/bench footprint", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=["human", "json"], default="human")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--binaries", type=pathlib.Path, help="measure these instead of building")
    args = parser.parse_args(words)
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    target = archive.host_target(ROOT)
    binaries = args.binaries or archive.build(ROOT, manifest, target)
    found = [measure(binaries / name, args.rounds) for name in archive.shipped(manifest, target)]
    limits = {
        "size_mb": (max(one["size_mb"] for one in found), SIZE_MB),
        "version_ms": (statistics.median(one["version_ms"] for one in found), VERSION_MS),
        "set_up_seconds": (set_up(manifest, binaries), SET_UP_SECONDS),
    }
    met = all(value <= limit for value, limit in limits.values())
    if args.format == "json":
        worst = {name: {"found": value, "limit": limit} for name, (value, limit) in limits.items()}
        print(json.dumps({"schema": 1, "target": target, "rounds": args.rounds, "binaries": found, "limits": worst, "met": met}, indent=2))
    else:
        print(f"{'':<24}{'MB':>8}{'--version ms':>14}")
        for one in found:
            print(f"{one['binary']:<24}{one['size_mb']:>8.2f}{one['version_ms']:>14.2f}")
        print(f"largest: {limits['size_mb'][0]:.2f} MB of {SIZE_MB}; median start: {limits['version_ms'][0]:.2f} ms of {VERSION_MS}; "
              f"set-up: {limits['set_up_seconds'][0]:.2f} s of {SET_UP_SECONDS}")
    return 0 if met else 1


def measure(path, rounds):
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([path, "--version"], check=True, stdout=subprocess.DEVNULL)
        took.append((time.perf_counter() - began) * 1000)
    return {"binary": path.name, "size_mb": round(path.stat().st_size / 1e6, 3), "version_ms": round(statistics.median(took), 2)}


def set_up(manifest, binaries):
    """Seconds of the slowest of five set-ups that find the archive in the cache; the first one put it there."""
    # The set-up asks for the archive of this machine's release, whatever the binaries were linked with.
    target = f"{platform.machine()}-unknown-linux-musl"
    version = archive.version(manifest)
    with tempfile.TemporaryDirectory(prefix="rw-bench-") as work:
        work = pathlib.Path(work)
        made = archive.write(ROOT, manifest, target, binaries, work / "mirror")
        shutil.copytree(ROOT / "setup", work / "action" / "setup")
        (work / "action" / "release").mkdir()
        (work / "action" / "release" / "VERSION").write_text(version + "\n")
        sums = f"{hashlib.sha256(made.read_bytes()).hexdigest()}  {made.name}\n"
        (work / "action" / "release" / "SHA256SUMS").write_text(sums)
        (work / "temporary").mkdir()
        env = {
            "PATH": os.environ["PATH"], "SETUP_MIRROR": str(work / "mirror"), "RUNNER_TEMP": str(work / "temporary"),
            "RUNNER_TOOL_CACHE": str(work / "cache"), "GITHUB_OUTPUT": str(work / "outputs"), "GITHUB_PATH": str(work / "path"),
        }  # fmt: skip
        took = []
        for hit in ["false"] + 5 * ["true"]:
            (work / "outputs").write_text("")
            began = time.perf_counter()
            done = subprocess.run([work / "action" / "setup" / "install.sh"], env=env, capture_output=True, text=True)
            took.append(time.perf_counter() - began)
            if done.returncode != 0 or f"cache-hit={hit}\n" not in (work / "outputs").read_text():
                sys.exit(f"the set-up ended {done.returncode}, and not with cache-hit={hit}: {done.stdout}{done.stderr}")
    return round(max(took[1:]), 2)
