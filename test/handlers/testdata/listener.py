#!/usr/bin/env python3
# An extension that subscribes to telemetry: over HTTP under the name of http, else
# over TCP. When it is told to end it prints what it got.
import http.client, http.server, json, os, socketserver, sys, threading, time

name = os.path.basename(sys.argv[0])
api = http.client.HTTPConnection(os.environ['AWS_LAMBDA_RUNTIME_API'])
got, mutex = [], threading.Lock()


def call(method, path, body, headers):
    api.request(method, path, json.dumps(body), headers)
    reply = api.getresponse()
    text = reply.read().decode()
    if reply.status != 200:
        sys.exit(f'{path}: {reply.status} {text}')
    return reply.headers, text


def add(events):
    with mutex:
        got.extend(events)


class HTTP(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_POST(self):
        add(json.loads(self.rfile.read(int(self.headers['Content-Length']))))
        self.send_response(200)
        self.send_header('Content-Length', '0')
        self.end_headers()

    def log_message(self, *_):
        pass


class TCP(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            add([json.loads(line)])


headers, _ = call('POST', '/2020-01-01/extension/register', {'events': ['INVOKE', 'SHUTDOWN']}, {'Lambda-Extension-Name': name})
me = {'Lambda-Extension-Identifier': headers['Lambda-Extension-Identifier']}
if name == 'http':
    server = http.server.ThreadingHTTPServer(('sandbox.localdomain', 4243), HTTP)
    destination = {'protocol': 'HTTP', 'URI': 'http://sandbox.localdomain:4243'}
else:
    server = socketserver.ThreadingTCPServer(('0.0.0.0', 4244), TCP)
    destination = {'protocol': 'TCP', 'port': 4244}
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
call('PUT', '/2022-07-01/telemetry', {
    'schemaVersion': '2022-12-13', 'types': ['platform', 'function'], 'destination': destination, 'buffering': {'timeoutMs': 25},
}, me)
while True:
    event = json.loads(call('GET', '/2020-01-01/extension/event/next', None, me)[1])
    if event['eventType'] == 'SHUTDOWN':
        with mutex:
            types = [e['type'] for e in got if 'ubscription' not in e['type'] and e['type'] != 'platform.extension']
            print(name, 'ends with', event['shutdownReason'], *types, flush=True)
        sys.exit(0)
