"""A Python handler, as it would run on AWS."""

import logging
import platform

log = logging.getLogger()
log.setLevel("INFO")


def handler(event, context):
    name = event.get("name", "world")
    log.info("greeting %s", name)
    return {
        "message": f"Hello, {name}, from Python {platform.python_version()}",
        "requestId": context.aws_request_id,
        "remaining": context.get_remaining_time_in_millis(),
    }
