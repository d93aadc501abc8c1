# A handler with an internal extension: it answers whether that was told of the
# invocation, too.
import http.client, json, os, threading, time

registered, told = threading.Event(), threading.Event()
events = []


def extension():
    api = http.client.HTTPConnection(os.environ['AWS_LAMBDA_RUNTIME_API'])

    def call(method, path, body, headers):
        api.request(method, '/2020-01-01/extension/' + path, body, headers)
        reply = api.getresponse()
        return reply.headers, reply.read()

    headers, _ = call('POST', 'register', '{"events":["INVOKE"]}', {'Lambda-Extension-Name': 'inside'})
    me = {'Lambda-Extension-Identifier': headers['Lambda-Extension-Identifier']}
    registered.set()
    while True:
        events.append(json.loads(call('GET', 'event/next', None, me)[1]))
        told.set()
        time.sleep(0.1)


threading.Thread(target=extension, daemon=True).start()
registered.wait()


def handler(event, context):
    print('a line')
    told.wait()
    told.clear()
    return [e['requestId'] for e in events][-1] == context.aws_request_id
