// A Node.js handler, as it would run on AWS.
export const handler = async (event, context) => {
  console.log("greeting", event.name ?? "nobody");
  return {
    message: `Hello, ${event.name ?? "world"}, from Node.js ${process.versions.node}`,
    requestId: context.awsRequestId,
    remaining: context.getRemainingTimeInMillis(),
  };
};
