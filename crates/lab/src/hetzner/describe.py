#!/usr/bin/env python3
"""Makes description.json of the description of the Hetzner Cloud API (OpenAPI 3.0, docs.hetzner.cloud).

    python3 describe.py cloud.spec.json > description.json

Only what a request may say is kept: the names of query parameters, and bodies as JSON schemas without prose.
"""

import json
import sys

PROSE = {"description", "example", "examples", "title", "summary", "default", "deprecated", "discriminator", "format"}
# The description wants strings here; Hetzner takes ids as numbers too, and its own clients send them.
ID_OR_NAME = {"image", "load_balancer_type", "location", "server_type", "ssh_keys"}

# Required here, and left out by Hetzner's own clients: the type of an unassigned primary IP (gone in August 2026), the
# health check of a service, which then is a plain tcp check, and what of it an update does not change.
NOT_REQUIRED = {
    ("post", "/primary_ips"): {"assignee_type"},
    ("post", "/load_balancers/{id}/actions/add_service"): {"health_check"},
    ("post", "/load_balancers/{id}/actions/update_service"): {"protocol", "port", "interval", "timeout", "retries"},
}


def resolved(node, root):
    while isinstance(node, dict) and "$ref" in node:
        target = root
        for part in node["$ref"][2:].split("/"):
            target = target[part]
        node = target
    return node


def schema_of(node, root, name=None, whole=True):
    """A schema; whole: it alone says what stands in its place, so that keys it does not name are wrong."""
    node = resolved(node, root)
    schema = {}
    for key, value in node.items():
        if key in PROSE or key == "nullable" or key.startswith("x-"):
            continue
        if key == "properties":
            value = {name: schema_of(inner, root, name) for name, inner in value.items()}
        elif key == "items":
            value = schema_of(value, root, name)
        elif key in ("allOf", "anyOf", "oneOf"):
            value = [schema_of(inner, root, name, whole=False) for inner in value]
        elif key == "additionalProperties" and isinstance(value, dict):
            value = schema_of(value, root)
        schema[key] = value
    if name in ID_OR_NAME and schema.get("type") == "string":
        schema["type"] = ["string", "integer"]
    if node.get("nullable"):
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    if whole and "additionalProperties" not in schema and schema.keys() & {"properties", "allOf", "anyOf", "oneOf"}:
        schema["unevaluatedProperties"] = False
    return schema


def require_less(schema, names):
    if isinstance(schema, dict):
        if isinstance(schema.get("required"), list):
            schema["required"] = [name for name in schema["required"] if name not in names]
        schema = list(schema.values())
    if isinstance(schema, list):
        for inner in schema:
            require_less(inner, names)


def route_of(method, path, operation, root):
    parameters = [resolved(parameter, root) for parameter in operation.get("parameters", [])]
    route = {"query": sorted(p["name"] for p in parameters if p["in"] == "query")}
    if "requestBody" in operation:
        route["body"] = schema_of(operation["requestBody"]["content"]["application/json"]["schema"], root)
        require_less(route["body"], NOT_REQUIRED.get((method, path), set()))
    return route


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        root = json.load(file)
    lines = [
        f"{json.dumps(f'{method.upper()} {path}')}: {json.dumps(route_of(method, path, operation, root), separators=(',', ':'))}"
        for path, operations in root["paths"].items()
        for method, operation in operations.items()
        if method in ("get", "post", "put", "delete")
    ]
    source = "Hetzner Cloud API description, docs.hetzner.cloud, June 2026; made by describe.py"
    print('{"source": ' + json.dumps(source) + ',\n"routes": {\n' + ",\n".join(lines) + "\n}}")


main()
