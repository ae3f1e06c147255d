"""The archive of one target: what it holds, how it is built, and that the same binaries always make the same bytes."""

import gzip
import os
import pathlib
import subprocess
import sys
import tarfile

LICENCES = ("LICENSE-APACHE", "LICENSE-MIT")


def version(manifest):
    return manifest["package"]["version"]


def name(manifest, target):
    return f"{manifest['package']['name']}-{version(manifest)}-{target}"


def shipped(manifest, target):
    """Every binary whose features a release of this target has: `lab` is for tests, `host` needs Linux."""
    features = features_of(target)
    return sorted(one["name"] for one in manifest["bin"] if set(one.get("required-features", [])) <= features)


def host_target(root):
    """The target of this machine, as rustc names it."""
    text = subprocess.run(["rustc", "-vV"], cwd=root, check=True, capture_output=True, text=True).stdout
    return next(line.split()[1] for line in text.splitlines() if line.startswith("host:"))


def features_of(target):
    return {"host"} if "linux" in target else set()


def build(root, manifest, target):
    """Builds with the profile `dist` and returns where the binaries are."""
    command = ["cargo", "build", "--locked", "--profile", "dist", "--target", target, "--no-default-features"]
    command += ["--features", ",".join(sorted(features_of(target)))]
    for binary in shipped(manifest, target):
        command += ["--bin", binary]
    cargo_home = pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo")
    # Where the builder has its files is nobody's business, and would make other bytes on every machine.
    remap = f"--remap-path-prefix={root}=/regionwise --remap-path-prefix={cargo_home}=/cargo"
    flags = f"{os.environ.get('RUSTFLAGS', '')} {remap}".strip()
    done = subprocess.run(command, cwd=root, env={**os.environ, "RUSTFLAGS": flags})
    if done.returncode != 0:
        sys.exit(f"cannot build {target}: `{' '.join(command)}` ended {done.returncode}")
    where = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or root / "target") / target / "dist"
    for binary in shipped(manifest, target):
        prove(where / binary, binary, version(manifest), target)
    return where


def prove(path, binary, wanted, target=None):
    """The binary starts here and is what it is called; one for another machine is only there."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True)
    except OSError as error:
        if target and path.is_file():
            print(f"{binary} for {target} was not started: {error}", file=sys.stderr)
            return
        sys.exit(f"cannot start {path}: {error}")
    if done.returncode != 0 or done.stdout.strip() != f"{binary} {wanted}":
        sys.exit(f"{path} --version ended {done.returncode} and said {done.stdout.strip()!r}, not '{binary} {wanted}'")


def write(root, manifest, target, binaries, to):
    """The same binaries make the same bytes: names in order, no owner, and the commit's time for every time."""
    when = int(subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=root, check=True, capture_output=True, text=True).stdout)
    folder = name(manifest, target)
    files = [(root / licence, licence, 0o644) for licence in LICENCES]
    files += [(binaries / binary, binary, 0o755) for binary in shipped(manifest, target)]
    to.mkdir(parents=True, exist_ok=True)
    path = to / f"{folder}.tar.gz"
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=when) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            tar.addfile(entry(f"{folder}/", tarfile.DIRTYPE, 0o755, when))
            for source, called, mode in files:
                one = entry(f"{folder}/{called}", tarfile.REGTYPE, mode, when)
                one.size = source.stat().st_size
                with open(source, "rb") as content:
                    tar.addfile(one, content)
    return path


def entry(called, kind, mode, when):
    one = tarfile.TarInfo(called)
    one.type, one.mode, one.mtime = kind, mode, when
    return one
