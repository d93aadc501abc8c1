exports.handler = async () => [__filename, typeof require];
