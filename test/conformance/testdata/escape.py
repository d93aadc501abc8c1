"""Looks for the credentials of the machine, as a careless handler would use them."""
import os
import socket


def handler(event, context):
    home = os.path.expanduser("~")
    found = []
    for path in [home, os.path.join(home, ".aws"), os.path.join(home, ".aws", "credentials"), event["home"], event["home"] + "/.aws/credentials"]:
        try:
            found.append([path, os.listdir(path) if os.path.isdir(path) else open(path).read()])
        except OSError:
            pass
    reached = []
    for address in event["addresses"]:
        try:
            socket.create_connection((address, 80), timeout=1).close()
            reached.append(address)
        except OSError:
            pass
    return {"environ": dict(os.environ), "home": home, "found": found, "reached": reached}
