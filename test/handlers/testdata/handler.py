"""Does what the event asks for. INIT, a variable, says what importing it does."""
import logging
import os
import signal
import sys
import time

print("module begins")


def initialise(what):
    if what == "fail":
        raise ValueError("no init")
    if what == "exit":
        os._exit(int(os.environ["CODE"]))
    if what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "once" and not os.path.exists("/tmp/tried"):
        open("/tmp/tried", "w").close()
        raise ValueError("the first time")
    if what == "slow" and not os.path.exists("/tmp/tried"):
        open("/tmp/tried", "w").close()
        time.sleep(300)


initialise(os.environ.get("INIT"))
count = 0
kept = []


def handler(event, context):
    global count
    count += 1
    return globals()["do_" + event.get("do", "count")](event, context)


def do_count(event, context):
    return count


def do_fail(event, context):
    raise ValueError("boom ü")


def do_sleep(event, context):
    time.sleep(event["seconds"])
    return "slept"


def do_exit(event, context):
    os._exit(event["code"])


def do_kill(event, context):
    os.kill(os.getpid(), event["signal"])
    time.sleep(60)


def do_allocate(event, context):
    kept.append(b"x" * (event["mb"] << 20))
    return len(kept)


def do_write(event, context):
    with open("/tmp/note", "w") as f:
        f.write("kept")


def do_read(event, context):
    return open("/tmp/note").read()


def do_print(event, context):
    for line in event["lines"]:
        print(line)
    sys.stderr.write("on stderr\nwithout an end")


def do_flood(event, context):
    line = "y" * 1023
    for _ in range(event["mb"] << 10):
        print(line)


def do_flood_records(event, context):
    line = "y" * 1023
    for _ in range(event["mb"] << 10):
        logging.error(line)


def do_record(event, context):
    logging.error("one\ntwo")


def do_size(event, context):
    return "x" * event["bytes"]


def do_env(event, context):
    return dict(os.environ)


def do_zone(event, context):
    return time.strftime("%H", time.localtime(0))


def do_context(event, context):
    return {
        "id": context.aws_request_id, "name": context.function_name, "version": context.function_version, "arn": context.invoked_function_arn,
        "memory": context.memory_limit_in_mb, "group": context.log_group_name, "stream": context.log_stream_name,
        "left": context.get_remaining_time_in_millis(), "custom": context.client_context.custom if context.client_context else None,
        "trace": os.environ.get("_X_AMZN_TRACE_ID"),
    }


def do_look(event, context):
    def writable(path):
        try:
            with open(path, "w"):
                pass
            return True
        except OSError:
            return False

    return {
        "cwd": os.getcwd(), "uid": os.getuid(), "read": sys.stdin.read() if sys.stdin else "",
        "task": writable(os.environ["LAMBDA_TASK_ROOT"] + "/new"), "tmp": writable("/tmp/new"), "etc": writable("/etc/new"),
        "files": sorted(os.readlink("/proc/self/fd/" + fd) for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)),
    }
