"""A page, and what its scripts call."""
import json

# It is told of all it needs in the fragment of its address, and tells a site of the test what came of it.
COMMON = """<!doctype html><body><script>
const c = JSON.parse(decodeURIComponent(location.hash.slice(1)));
const report = (what, result) => fetch(c.site + "/report", { method: "POST", mode: "no-cors", body: what + ": " + result });
const tried = async (what, call) => {
  try { await report(what, await call()); } catch (e) { await report(what, e.name); }
};
const create = (base, mode) => async () => {
  const r = await fetch(base + c.path, { method: "POST", mode, headers: { "Content-Type": "text/plain" }, body: c.body });
  return r.type + " " + r.status;
};
"""

BY_HOST = COMMON + """
document.body.append(Object.assign(new Image(), { src: c.site + "/wait" }));
(async () => {
  await tried("allowed", async () => {
    const r = await fetch(c.allowed + "x", { method: "PUT", headers: { "x-mine": "1" }, body: "b" });
    return [r.status, (await r.json()).method, r.headers.get("x-shown"), r.headers.get("x-hidden")].join(" ");
  });
  await tried("not this method", async () => (await fetch(c.allowed, { method: "DELETE" })).status);
  await tried("not this origin", async () => (await fetch(c.closed)).status);
  await tried("own host", async () => (await fetch(c.path, { method: "POST", body: c.body })).headers.get("x-shown"));
  for (const base of c.bases) {
    await tried("create, no-cors", create(base, "no-cors"));
    await tried("create, cors", create(base, "cors"));
  }
  document.body.append(Object.assign(document.createElement("iframe"), { src: c.bases[1] + "/_kiln/url/" + location.host.split(".")[0] + "/by-path" + location.hash }));
})();
</script>"""

BY_PATH = COMMON + """
(async () => {
  await report("origin", self.origin);
  await tried("storage", () => localStorage.length);
  await tried("create by path, same-origin", create("", "same-origin"));
  await tried("create by path, no-cors", create("", "no-cors"));
  await tried("create by path, cors", create("", "cors"));
  await report("end", "");
})();
</script>"""


def handler(event, context):
    page = {"/": BY_HOST, "/by-path": BY_PATH}.get(event["rawPath"])
    method = event["requestContext"]["http"]["method"]
    if page and method == "GET":
        return {"statusCode": 200, "headers": {"content-type": "text/html"}, "body": page}
    return {"statusCode": 200, "headers": {"x-shown": "shown", "x-hidden": "hidden", "access-control-allow-origin": "*"}, "body": json.dumps({"method": method})}
