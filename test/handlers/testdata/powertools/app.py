from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

logger = Logger(service="orders")
metrics = Metrics(namespace="Shop", service="orders")
processor = BatchProcessor(event_type=EventType.SQS)


def one(record):
    if record.body == "bad":
        raise ValueError("bad order")
    return record.body


@logger.inject_lambda_context
@metrics.log_metrics(capture_cold_start_metric=True)
def handler(event, context):
    if "Records" in event:
        return process_partial_response(event=event, record_handler=one, processor=processor, context=context)
    logger.debug("unseen")
    logger.info("an order", extra={"order": {"id": event["id"]}})
    try:
        raise ValueError("bad order")
    except ValueError:
        logger.exception("failed")
    metrics.add_dimension(name="kind", value="book")
    metrics.add_metric(name="sold", unit=MetricUnit.Count, value=2)
    return context.aws_request_id
