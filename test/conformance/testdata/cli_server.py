"""Runs the AWS CLI for each connection to a socket, in a fork of one interpreter
that has loaded it: its modules cost four times what a call does.

A request is one line of JSON, {"args": [...], "env": {...}}; so is the answer,
{"code": 0, "out": "...", "err": "..."}. It ends with its standard input.
"""

import json
import os
import socketserver
import sys
import tempfile
import threading

import awscli.clidriver
import awscli.customizations.waiters
import botocore.client
import botocore.httpsession
import botocore.paginate
import botocore.waiter


class Call(socketserver.StreamRequestHandler):
    def handle(self):
        request = json.loads(self.rfile.readline())
        os.environ.update(request["env"])
        sys.argv = ["aws", *request["args"]]
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            code = awscli.clidriver.main()
        except SystemExit as e:
            code = e.code
        sys.stdout.flush()
        sys.stderr.flush()
        texts = []
        for f in (out, err):
            f.seek(0)
            texts.append(f.read().decode())
        answer = {"code": code, "out": texts[0], "err": texts[1]}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


class Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    max_children = 64


with Server(sys.argv[1], Call) as server:
    print("ready", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
    server.serve_forever(poll_interval=0.1)
