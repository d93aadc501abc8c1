import { BatchProcessor, EventType, processPartialResponse } from "@aws-lambda-powertools/batch";
import { Logger } from "@aws-lambda-powertools/logger";
import { Metrics, MetricUnit } from "@aws-lambda-powertools/metrics";

const logger = new Logger({ serviceName: "orders" });
const metrics = new Metrics({ namespace: "Shop", serviceName: "orders" });
const processor = new BatchProcessor(EventType.SQS);

const one = (record) => {
  if (record.body === "bad") throw new Error("bad order");
  return record.body;
};

export const handler = async (event, context) => {
  logger.addContext(context);
  if (event.Records) return processPartialResponse(event, one, processor, { context });
  metrics.captureColdStartMetric(context.functionName);
  logger.debug("unseen");
  logger.info("an order", { order: { id: event.id } });
  try {
    one({ body: "bad" });
  } catch (error) {
    logger.error("failed", error);
  }
  metrics.addDimension("kind", "book");
  metrics.addMetric("sold", MetricUnit.Count, 2);
  metrics.publishStoredMetrics();
  return context.awsRequestId;
};
