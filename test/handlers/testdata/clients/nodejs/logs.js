console.log("loading");
exports.handler = async () => 1;
