"""What `provision-region` asks of Hetzner for 1 to 10 regions, and how long that takes when the cloud itself takes no time.

    scripts/bench provision [--format human|json] [--profile release|dev] [--regions N] [--looks N]

Each world is an empty project of the lab's Hetzner; its regions are ordered one after the other: two hosts, Redis and a load
balancer each, and one database with a volume for every two. Then every region is run a second time, which must order nothing.

- requests: of all runs of a world together, and of the largest one alone; Hetzner allows 3,600 in an hour.
- seconds: wall time of all runs, each a process of its own.
- again: requests of the second runs.

With --looks 0 (the default) an action has ended when it is answered, so the seconds are ours alone.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LOCATIONS = ["ash", "fsn1", "sin", "nbg1", "hil", "hel1"]


def main(words):
    if words[:1] == ["--inside"]:
        return inside(pathlib.Path(words[1]), words[2:])
    parser = argparse.ArgumentParser(prog="scripts/bench provision", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=["human", "json"], default="human")
    parser.add_argument("--profile", choices=["release", "dev"], default="release")
    parser.add_argument("--regions", type=int, default=10, choices=range(1, 11), metavar="1-10")
    parser.add_argument("--looks", type=int, default=0)
    args = parser.parse_args(words)
    subprocess.run(["cargo", "build", "--bins", "--quiet", "--profile", args.profile], cwd=ROOT, check=True)
    binaries = ROOT / "target" / ("debug" if args.profile == "dev" else args.profile)
    worlds = [world(binaries, count, args.looks) for count in range(1, args.regions + 1)]
    if args.format == "json":
        print(json.dumps({"schema": 1, "looks": args.looks, "worlds": worlds}, indent=2))
        return 0
    print(f"{'regions':>8}{'servers':>9}{'requests':>10}{'largest run':>13}{'seconds':>9}{'again':>7}")
    for one in worlds:
        print(f"{one['regions']:>8}{one['servers']:>9}{one['requests']:>10}{one['largest']:>13}{one['seconds']:>9.2f}{one['again']:>7}")
    return 0


def world(binaries, count, looks):
    with tempfile.TemporaryDirectory(prefix="rw-bench-") as directory:
        work = pathlib.Path(directory)
        names = [f"region-{number}" for number in range(1, count + 1)]
        (work / "regions.toml").write_text(config(names))
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", work / "root"], check=True)
        script = [sys.executable, ROOT / "scripts" / "bench", "provision", "--inside", work, binaries / "provision-region", *names]
        command = [binaries / "lab", "hetzner", "--looks", str(looks), "--", *script]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def inside(work, words):
    """Runs beside the Hetzner of the lab, whose address is in the environment."""
    binary, names = words[0], words[1:]
    began = time.monotonic()
    first = [run(binary, work, name) for name in names]
    seconds = time.monotonic() - began
    again = [run(binary, work, name) for name in names]
    if any(one["changed"] for one in again):
        sys.exit("a second run ordered something")
    servers = sum(change["kind"] == "server" for one in first for change in one["changes"])
    requests = [one["requests"] for one in first]
    print(json.dumps({"regions": len(names), "servers": servers, "requests": sum(requests), "largest": max(requests), "seconds": seconds,
                      "again": sum(one["requests"] for one in again)}))
    return 0


def run(binary, work, region):
    env = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    # Nobody can log in to the entries of a list.
    env["REGIONWISE_SERVERS_ONLY"] = "true"
    command = [binary, "--config", work / "regions.toml", "--format", "json", "--ci", "none", "--region", region]
    ended = subprocess.run(command, env=env, capture_output=True, text=True)
    if ended.returncode != 0:
        sys.exit(f"{region} ended {ended.returncode}: {ended.stdout}{ended.stderr}")
    return json.loads(ended.stdout)["result"]


def config(names):
    """A product with these regions; every second one has a node of the cluster."""
    text = """[product]
name = "shop"
[ssh]
known_hosts = "known_hosts"
identity = "file:key"
[provision]
root_keys = ["root.pub"]
ssh_from = ["198.51.100.7/32"]
api = { types = ["cpx42", "cpx41"] }
database = { types = ["cpx32", "cpx31"], volume_gb = 200 }
redis = { types = ["cpx12", "cpx21"] }
load_balancer = { types = ["lb11"] }
"""
    nodes = []
    for number, name in enumerate(names):
        location = LOCATIONS[number % len(LOCATIONS)]
        text += f"""[regions.{name}]
location = "{location}"
traffic = {0.5 / (number + 1):.3f}
cluster = "main"
url = "http://{name}.shop.example"
hosts = {{ {name}-a = {{}}, {name}-b = {{}} }}
"""
        if number % 2 == 0:
            nodes.append(f'{{ name = "node-{number}", location = "{location}", region = "{name}", dsn = "env:NODE_{number}" }}')
    return text + f"[clusters.main]\nprimary = {nodes[0]}\nstandbys = [{', '.join(nodes[1:])}]\n"
