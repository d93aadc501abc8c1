"""Makes a small picture of each PNG that is put into a bucket under in/, and puts it under
thumbnails/. It needs nothing but Python: where boto3 is there, its two calls of S3 are shorter.
"""
import datetime, hashlib, hmac, http.client, os, struct, zlib
from urllib.parse import quote, unquote_plus, urlsplit

SIZE = 128  # of the longer side, in pixels


def handler(event, context):
    for record in event["Records"]:
        bucket, key = record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"])
        to = "thumbnails/" + key.removeprefix("in/")
        width, height, channels, pixels = read_png(s3("GET", bucket, key))
        scale = max(1, width / SIZE, height / SIZE)
        small = shrink(width, height, channels, pixels, max(1, round(width / scale)), max(1, round(height / scale)))
        s3("PUT", bucket, to, write_png(*small))
        print(f"{key}: {width} x {height} is {small[0]} x {small[1]} at {to}")


def s3(method, bucket, key, body=b""):
    """One signed request of S3, at the endpoint that every AWS SDK would take as well."""
    url = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or f"https://s3.{os.environ['AWS_REGION']}.amazonaws.com")
    path, now = f"/{bucket}/{quote(key, safe='/~')}", datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    headers = {
        "host": url.netloc, "x-amz-content-sha256": hashlib.sha256(body).hexdigest(), "x-amz-date": now,
        "x-amz-security-token": os.environ["AWS_SESSION_TOKEN"],
    }
    names, scope = ";".join(sorted(headers)), f"{now[:8]}/{os.environ['AWS_REGION']}/s3/aws4_request"
    lines = [method, path, "", *(f"{n}:{headers[n]}" for n in sorted(headers)), "", names, headers["x-amz-content-sha256"]]
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256("\n".join(lines).encode()).hexdigest()])
    signature = ("AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()
    for part in [*scope.split("/"), text]:
        signature = hmac.new(signature, part.encode(), hashlib.sha256).digest()
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={os.environ['AWS_ACCESS_KEY_ID']}/{scope}, SignedHeaders={names}, Signature={signature.hex()}"
    connection = (http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection)(url.netloc, timeout=30)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{method} {path}: {answer.status} {content.decode(errors='replace')}")
    return content


def read_png(data):
    """The pixels of a PNG of 8 bits a channel, not interlaced: grey or colours, with or without alpha."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("this is no PNG")
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        chunk = data[at + 8:at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunk)
        elif kind == b"IDAT":
            packed += chunk
        at += 12 + length
    channels = {0: 1, 2: 3, 4: 2, 6: 4}.get(colour)
    if depth != 8 or interlaced or channels is None:
        raise ValueError("PNGs with palettes, of other depths, or interlaced are not read here")
    raw, row, rows, before = zlib.decompress(packed), width * channels, [], bytes(width * channels)
    for y in range(height):
        how, line = raw[y * (row + 1)], bytearray(raw[y * (row + 1) + 1:(y + 1) * (row + 1)])
        for i in range(row if how else 0):
            a, b, c = line[i - channels] if i >= channels else 0, before[i], before[i - channels] if i >= channels else 0
            p = abs(b - c), abs(a - c), abs(a + b - 2 * c)
            paeth = a if p[0] <= p[1] and p[0] <= p[2] else b if p[1] <= p[2] else c
            line[i] = (line[i] + (0, a, b, (a + b) // 2, paeth)[how]) & 255
        rows.append(bytes(line))
        before = line
    return width, height, channels, rows


def shrink(width, height, channels, rows, w, h):
    """Each new pixel is the mean of those that it stands for."""
    small = []
    for y in range(h):
        lines, line = rows[y * height // h:max((y + 1) * height // h, y * height // h + 1)], bytearray()
        for x in range(w):
            first, end = x * width // w, max((x + 1) * width // w, x * width // w + 1)
            for c in range(channels):
                values = [v for one in lines for v in one[first * channels + c:end * channels:channels]]
                line.append(sum(values) // len(values))
        small.append(bytes(line))
    return w, h, channels, small


def write_png(width, height, channels, rows):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 2: 4, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + r for r in rows))) + chunk(b"IEND", b"")
