Promise.reject(new RangeError("left"));
exports.handler = async () => 1;
