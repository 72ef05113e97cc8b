#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""
Every operation of module/abi/mutex_proxy.yaml, by the kernel's own Python client (tools/net/ynl), in
the network namespace where this runs.

usage: every_operation.py SPEC, with the client's pyynl in PYTHONPATH
"""

import socket
import sys

from lib import NlError, YnlFamily


class Client:
    """The family, and which of its operations were used."""

    def __init__(self, spec):
        # The kernel's schema, by which the specification is checked when C is generated of it, is not among an image's sources.
        self.family = YnlFamily(spec, schema="")
        self.used = set()

    def do(self, operation, **attributes):
        """One request and its answer."""
        self.used.add((operation, "do"))
        return self.family.do(operation, attributes)

    def dump(self, operation, **attributes):
        """All that is told."""
        self.used.add((operation, "dump"))
        return self.family.dump(operation, attributes)

    def unused(self):
        """Operations of the specification that were not used."""
        operations = {
            (name, kind)
            for name, operation in self.family.ops.items()
            for kind in ("do", "dump")
            if kind in operation.yaml
        }
        return operations - self.used


def expect(what, got, expected):
    """Fails unless what is expected is there; more may be."""
    if isinstance(expected, dict) and isinstance(got, dict):
        for key, value in expected.items():
            expect(f"{what}, {key}", got.get(key), value)
    elif isinstance(expected, list) and isinstance(got, list) and len(got) == len(expected):
        for number, (one, other) in enumerate(zip(got, expected)):
            expect(f"{what}, number {number}", one, other)
    elif got != expected:
        sys.exit(f"{what}: expected {expected!r}, got {got!r}")


def refused(what, error, request):
    """Fails unless the request does, with this error, and a sentence that has these words."""
    number, words = error
    try:
        request()
    except NlError as told:
        expect(what, told.error, number)
        message = (told.nl_msg.extack or {}).get("msg", "")
        if words not in message:
            sys.exit(f"{what}: expected {words!r}, was told {message!r}")
    else:
        sys.exit(f"{what}: it was not refused")


def main():
    """All of it."""
    client = Client(sys.argv[1])
    servers = [
        {"address": "198.51.100.2", "port": 7007},
        {"address": "2001:db8:2::2", "port": 7007},
    ]
    group = {"selection": "failover", "label": "servers"}
    chosen = {
        "destination": {"address": "203.0.113.0", "prefix-length": 24},
        "destination-ports": {"first": 80, "last": 89},
        "protocol": 6,
        "action": "redirect",
        "group": 0,
        "label": "web",
        "condition": [{"field": "source-port", "set": 0, "not": True}],
    }
    blocked = {"ip-version": 6, "interface": "lan", "action": "reject", "label": "six"}
    # Two ranges of numbers, of 8 bytes each.
    numbers = b"".join(number.to_bytes(8, sys.byteorder) for number in (1, 99, 200, 200))
    some = {"number": 0, "label": "low", "kind": "numbers", "numbers": numbers}

    client.do("stage", begin=True, set=[some])
    client.do("stage", group=[{**group, "upstream": servers}], rule=[chosen, blocked])
    expect("a dry run", client.do("commit", context="ynl", **{"dry-run": True}), {"generation": 0})
    expect("a commit", client.do("commit", context="ynl"), {"generation": 1})

    context = {"context": "ynl", "generation": 1, "groups": 1, "upstreams": 2, "rules": 2, "sets": 1}
    expect("the context", client.do("context-get", context="ynl"), context)
    expect("all contexts", client.dump("context-get"), [context])
    expect("groups", client.dump("group-get", context="ynl"), [{"group": [group]}])
    told = [{"upstream-group": 0, "upstream": server} for server in servers]
    expect("upstreams", client.dump("upstream-get", context="ynl"), told)
    told = [
        {"rule": [rule], "rule-number": number, "connections": 0}
        for number, rule in enumerate([{**chosen, "ip-version": 4}, blocked])
    ]
    expect("rules", client.dump("rule-get", context="ynl"), told)
    expect("sets", client.dump("set-get", context="ynl"), [{"set": [{**some, "elements": 2}]}])

    # What is there beside is of whoever has laid out this namespace: one connection to find again.
    with socket.create_connection(("198.51.100.3", 7), timeout=10) as connection:
        ends = [("local", ("198.51.100.2", 7007)), ("remote", connection.getsockname())]
        asked = {"protocol": 6}
        for end, (address, port) in ends:
            asked |= {f"{end}-address": address, f"{end}-port": port}
        found = client.do("original-get", connection=asked)["connection"]
        expect("the original", found, {"local-address": "198.51.100.3", "local-port": 7})
        address, port = connection.getsockname()
        flow = {
            "protocol": 6,
            "client-address": address,
            "client-port": port,
            "original-address": "198.51.100.3",
            "original-port": 7,
            "upstream-address": "198.51.100.2",
            "upstream-port": 7007,
            "state": "established",
        }
        tcp = {"ip-version": 4, "protocol": 6, "destination-ports": {"first": 7}}
        expect("flows", client.dump("flow-get", filter=tcp), [{"flow": flow}])
        expect("no such flow", client.dump("flow-get", filter={**tcp, "protocol": 17}), [])
        expect("flows that go", client.do("flow-del", filter=tcp), {"flows": 1})
        expect("flows afterwards", client.dump("flow-get", filter=tcp), [])
    statistics = client.do("statistics-get")["statistics"]
    if statistics["flows-created"] < 1 or statistics["packets-original"] < 2:
        sys.exit(f"the connection was not counted: {statistics}")

    refused("nothing staged", (61, ""), lambda: client.do("commit", context="ynl"))
    bad = {**blocked, "action": "redirect", "group": 7}
    refused("a group that is not there", (22, "group"), lambda: client.do("stage", begin=True, rule=[bad]))
    client.do("stage", begin=True, rule=[blocked])
    refused(
        "another generation", (116, ""), lambda: client.do("commit", context="ynl", generation=9)
    )
    # A socket of its own: to listen binds it anew.
    listener = YnlFamily(sys.argv[1], schema="")
    listener.ntf_subscribe("events")
    client.do("context-del", context="ynl")
    event = next(listener.poll_ntf(duration=10), None)
    expect("an event", event, {"name": "context-gone", "msg": {"context": "ynl"}})
    expect("contexts afterwards", client.dump("context-get"), [])
    refused("a context that is gone", (2, ""), lambda: client.do("context-get", context="ynl"))

    if client.unused():
        sys.exit(f"not tried: {sorted(client.unused())}")
    print(f"all {len(client.used)} operations do what the specification says")


main()
