const seven = await new Promise((done) => setTimeout(done, 5, 7));
export const handler = async () => [seven, typeof require, import.meta.url];
export default { other: async () => "default" };
