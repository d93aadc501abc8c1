# Uses a bucket as a program would, with boto3, and says ok.
import io, os, sys, urllib.error, urllib.request
import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

s3 = boto3.client("s3", config=Config(retries={"max_attempts": 1}, s3={"addressing_style": os.environ.get("STYLE", "path")}))
bucket = sys.argv[1]


def refused(code, call, **args):
    try:
        call(**args)
    except ClientError as e:
        assert e.response["Error"]["Code"] == code, e
        return e.response
    raise AssertionError("not refused: " + code)


refused("NoSuchBucket", s3.list_objects_v2, Bucket=bucket)
s3.create_bucket(Bucket=bucket)
s3.head_bucket(Bucket=bucket)
assert bucket in [b["Name"] for b in s3.list_buckets()["Buckets"]]

# Keys as people have them, and what is known of an object.
keys = ["a", "with space", "plus+plus", "ü/é", "a&b=c?d#e%f", "(1)*!'@$,;:", "deep/er/still", "~tilde", "100%", "x" * 200]
for key in keys:
    put = s3.put_object(Bucket=bucket, Key=key, Body=key.encode(), ContentType="text/plain", Metadata={"name": "value"}, CacheControl="no-store")
    got = s3.get_object(Bucket=bucket, Key=key)
    assert got["Body"].read() == key.encode() and got["ETag"] == put["ETag"], key
    assert (got["ContentType"], got["Metadata"], got["CacheControl"]) == ("text/plain", {"name": "value"}, "no-store"), (got["ContentType"], got["Metadata"], got["CacheControl"])
listed = [o["Key"] for o in s3.list_objects_v2(Bucket=bucket)["Contents"]]
assert sorted(listed) == sorted(keys), listed
page = s3.list_objects_v2(Bucket=bucket, Delimiter="/", MaxKeys=1000)
assert sorted(p["Prefix"] for p in page["CommonPrefixes"]) == ["deep/", "ü/"], page
for key in ["a/../b", "./a", "a//b"]:
    refused("InvalidArgument", s3.put_object, Bucket=bucket, Key=key, Body=b"")
refused("InvalidArgument", s3.copy_object, Bucket=bucket, Key="b", CopySource={"Bucket": bucket, "Key": "deep/../a"})
assert s3.get_object(Bucket=bucket, Key="a", Range="bytes=0-0")["Body"].read() == b"a"
s3.put_object(Bucket=bucket, Key="empty")
assert s3.head_object(Bucket=bucket, Key="empty")["ContentLength"] == 0
refused("404", s3.head_object, Bucket=bucket, Key="absent")
refused("NoSuchKey", s3.get_object, Bucket=bucket, Key="absent")

# Checksums.
for algorithm in ["CRC32", "SHA256"]:
    s3.put_object(Bucket=bucket, Key="sum", Body=io.BytesIO(b"x" * 200_000), ChecksumAlgorithm=algorithm)
    assert s3.head_object(Bucket=bucket, Key="sum", ChecksumMode="ENABLED").get("Checksum" + algorithm), algorithm
refused("BadDigest", s3.put_object, Bucket=bucket, Key="sum", Body=b"x", ChecksumCRC32="AAAAAA==")

# Copies, several parts, and versions.
s3.copy_object(Bucket=bucket, Key="copy of ü", CopySource={"Bucket": bucket, "Key": "ü/é"})
assert s3.get_object(Bucket=bucket, Key="copy of ü")["Body"].read() == "ü/é".encode()
big = os.urandom(12 << 20)
s3.upload_fileobj(io.BytesIO(big), bucket, "big", Config=TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20))
assert s3.head_object(Bucket=bucket, Key="big")["ETag"].endswith('-3"')
assert s3.get_object(Bucket=bucket, Key="big")["Body"].read() == big
upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
part = s3.upload_part_copy(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, CopySource={"Bucket": bucket, "Key": "big"}, CopySourceRange="bytes=0-5242879")
assert [p["PartNumber"] for p in s3.list_parts(Bucket=bucket, Key="parts", UploadId=upload)["Parts"]] == [1]
s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]})
upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
s3.abort_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload)
s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
first = s3.put_object(Bucket=bucket, Key="a", Body=b"1")["VersionId"]
s3.put_object(Bucket=bucket, Key="a", Body=b"2")
assert s3.get_object(Bucket=bucket, Key="a", VersionId=first)["Body"].read() == b"1"
assert s3.delete_object(Bucket=bucket, Key="a")["DeleteMarker"]
refused("NoSuchKey", s3.get_object, Bucket=bucket, Key="a")
assert s3.get_object(Bucket=bucket, Key="a", VersionId=first)["Body"].read() == b"1"

# Presigned URLs of both versions, for whoever has them. botocore makes the older by default.
def fetch(url, data=None):
    with urllib.request.urlopen(urllib.request.Request(url, data=data, method="PUT" if data else "GET")) as r:
        return r.read(), r.headers["Content-Type"]


for version in ["s3", "s3v4"]:
    signer = boto3.client("s3", config=Config(signature_version=version, s3={"addressing_style": "path"}))
    fetch(signer.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "given ü", "ContentType": "application/x-www-form-urlencoded"}), b"by url " + version.encode())
    url = signer.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "given ü", "ResponseContentType": "text/x"})
    assert fetch(url) == (b"by url " + version.encode(), "text/x")
    for bad in [url.replace("given", "given2"), url.replace("text", "image")] if len(sys.argv) > 2 else []:
        try:
            fetch(bad)
            raise AssertionError(bad)
        except urllib.error.HTTPError as e:
            assert e.code == 403 and b"SignatureDoesNotMatch" in e.read(), bad

# Tags, and what is not built says so.
s3.put_object_tagging(Bucket=bucket, Key="given ü", Tagging={"TagSet": [{"Key": "k", "Value": "v"}]})
assert s3.get_object_tagging(Bucket=bucket, Key="given ü")["TagSet"] == [{"Key": "k", "Value": "v"}]
refused("NotImplemented", s3.put_bucket_policy, Bucket=bucket, Policy="{}")
refused("NotImplemented", s3.put_bucket_lifecycle_configuration, Bucket=bucket, LifecycleConfiguration={"Rules": []})

# A bucket is in one region, and its name is taken in all.
there = boto3.client("s3", region_name="eu-west-1", config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}))
refused("BucketAlreadyOwnedByYou", there.create_bucket, Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
assert there.get_object(Bucket=bucket, Key="given ü")["Body"].read() == b"by url s3v4"  # it is sent there

refused("BucketNotEmpty", s3.delete_bucket, Bucket=bucket)
for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
    objects = [{"Key": v["Key"], "VersionId": v["VersionId"]} for v in page.get("Versions", []) + page.get("DeleteMarkers", [])]
    gone = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    assert len(gone["Deleted"]) == len(objects), gone
s3.delete_bucket(Bucket=bucket)
print("ok")
