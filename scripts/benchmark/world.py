"""What every contender starts from: the product's tables and rows in two servers, with a link between them."""

import contextlib
import os
import pathlib
import resource
import subprocess

from .servers import Delay, Server, cpu_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROWS_PER_USER = 31

SCHEMA = """
    CREATE TABLE users (id bigint PRIMARY KEY, region text NOT NULL, email text NOT NULL UNIQUE, name text NOT NULL,
        version bigint NOT NULL DEFAULT 0, created_at timestamptz NOT NULL, about text);
    CREATE TABLE orders (id bigint PRIMARY KEY, user_id bigint NOT NULL REFERENCES users, created_at timestamptz NOT NULL,
        total numeric(12,2) NOT NULL, note text NOT NULL);
    CREATE INDEX ON orders (user_id);
    CREATE TABLE items (id bigint PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders, sku uuid NOT NULL,
        quantity int NOT NULL, price numeric(12,2) NOT NULL, note text {flat});
    CREATE INDEX ON items (order_id);"""

# Row filters of UPDATE and DELETE may only use columns of the replica identity.
FLAT = """
    CREATE INDEX ON items (user_id);
    ALTER TABLE orders REPLICA IDENTITY FULL;
    ALTER TABLE items REPLICA IDENTITY FULL;"""

ROWS = """
    INSERT INTO users SELECT u, CASE WHEN u <= {users} THEN 'eu' ELSE 'us' END, 'user' || u || '@example.com', 'User ' || u,
        0, '2026-01-01'::timestamptz + u * interval '1 minute', md5(u::text) FROM generate_series(1, {users} + {others}) AS u;
    INSERT INTO orders SELECT u * 100 + o, u, '2026-02-01'::timestamptz + (u + o) * interval '1 second', (u % 977) + o / 4.0,
        md5(o || 'order' || u) || md5(u::text) FROM generate_series(1, {users} + {others}) AS u, generate_series(1, {orders}) AS o;
    INSERT INTO items SELECT u * 1000 + o * 10 + i, u * 100 + o, md5(u || 'sku' || i)::uuid, i, (u % 89) + o / 8.0,
        CASE WHEN i = 2 THEN md5(i || 'item' || o) END {flat}
        FROM generate_series(1, {users} + {others}) AS u, generate_series(1, {orders}) AS o, generate_series(1, 2) AS i;"""


class World:
    def __init__(self, args, work):
        self.args, self.work, self.servers, self.links, self.tools = args, work, [], [], []
        self.users = args.users
        account = "regionwise-lab" if os.geteuid() == 0 else None
        command = ["cargo", "build", "--quiet", "--release", "-p", "regionwise-lab", "--examples"]
        subprocess.run(command, cwd=ROOT, check=True)
        self.examples = ROOT / "target" / "release" / "examples"
        self.migrate = args.migrate
        try:
            for name in ("source", "target"):
                self.servers.append(Server(work, name, account))
            self.source, self.target = self.servers
            self.fill(args)
        except BaseException:
            self.__exit__()
            raise

    def fill(self, args):
        """One database for each way of having the tables."""
        self.make("shop", args.users, args.others)
        self.make("flat", args.users, args.others, flat=True)
        self.make("whole", args.users, 0)

    def make(self, database, users, others, orders=10, flat=False):
        """Tables in both servers, rows in the source: each order has two items."""
        for server in self.servers:
            server.sql("postgres", f"CREATE DATABASE {database}")
            extra = ", user_id bigint NOT NULL" if flat else ""
            server.sql(database, SCHEMA.format(flat=extra) + (FLAT if flat else ""))
        self.source.sql(database, ROWS.format(users=users, others=others, orders=orders, flat=", u" if flat else ""))
        self.source.sql(database, "VACUUM ANALYZE")

    def make_small(self, users):
        """`shop` with fewer users that move, once."""
        if self.source.sql("postgres", "SELECT 1 FROM pg_database WHERE datname = 'small'"):
            return
        for server in self.servers:
            server.sql("postgres", "CREATE DATABASE small TEMPLATE shop")
        self.source.sql("small", f"UPDATE users SET region = 'us' WHERE id > {users}")

    def drop(self, *databases):
        for server in self.servers:
            for database in databases:
                server.sql("postgres", f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for tool in self.tools:
            tool.kill()
        for server in self.servers:
            server.stop()

    @contextlib.contextmanager
    def link(self, delay):
        """Both servers over a link with a round trip of `delay` ms."""
        self.to_target, self.to_source = self.links = [Delay(self, server, delay) for server in (self.target, self.source)]
        try:
            yield
        finally:
            for link in self.links:
                link.end()
            self.links = []

    def crossed(self):
        """Bytes on the link since this was last asked."""
        return sum(link.bytes() for link in self.links)

    def helpers(self, ledger):
        """Seconds of what measures, not of what is measured."""
        processes = [link.process for link in self.links] + ([ledger.process] if ledger else [])
        itself = resource.getrusage(resource.RUSAGE_SELF)
        return itself.ru_utime + itself.ru_stime + sum(cpu_of(process.pid) for process in processes)

    def reset(self, contender):
        """The same start for every run: an empty target, the source's rows as they were made, in memory."""
        database = "shop" if contender.database == "ours" else contender.database
        ledger = "DELETE FROM orders WHERE id >= 1::bigint << 40; UPDATE users SET version = 0 WHERE version <> 0;"
        self.source.sql(database, ledger)
        self.source.sql(database, "VACUUM")
        if self.target.sql(database, "SELECT to_regclass('users')"):
            self.target.sql(database, "TRUNCATE users, orders, items")
        if contender.prepare:
            contender.prepare(self)
        for server in self.servers:
            server.sql(database, "CHECKPOINT")
        self.content(self.source, contender)

    def content(self, server, contender):
        """What a server holds of the users that move: a line for each table."""
        eu = {"users": "id", "orders": "user_id", "items": "order_id / 100"}
        parts = [
            f"SELECT '{table}', count(*), md5(string_agg(t::text, '|' ORDER BY id)) FROM {table} AS t"
            f" WHERE {column} <= {self.users}"
            for table, column in eu.items()
        ]
        # In one order: a parallel plan gives the parts as they get ready.
        return sorted(server.sql(contender.database, " UNION ALL ".join(parts)).splitlines())
