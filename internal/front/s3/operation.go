package s3

import (
	"net"
	"net/http"
	"strings"
)

// operation is one of S3's.
type operation struct {
	name, method string
	on           level
	parameter    string            // of the query, that tells it from others; "" where there is none
	copies       bool              // it has X-Amz-Copy-Source
	action       string            // that a policy must allow; "" is asked for by the operation itself
	versioned    string            // that it must with a versionId; "" where it is the same
	event        string            // of the object, which notifications tell of
	changes      bool              // it is in the audit log. What is done with objects is not, as data
	serve        func(*call) error // nil: it is passed on as it is
}

// level is what an operation is about.
type level int

const (
	service level = iota
	bucket
	object
)

// operations are those that are built.
// https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
var operations = []operation{
	{name: "ListBuckets", method: "GET", on: service, action: "s3:ListAllMyBuckets"},

	{name: "CreateBucket", method: "PUT", on: bucket, action: "s3:CreateBucket", changes: true},
	{name: "DeleteBucket", method: "DELETE", on: bucket, action: "s3:DeleteBucket", changes: true, serve: (*call).deleteBucket},
	{name: "HeadBucket", method: "HEAD", on: bucket, action: "s3:ListBucket"},
	{name: "ListObjects", method: "GET", on: bucket, action: "s3:ListBucket"},
	{name: "ListObjectVersions", method: "GET", on: bucket, parameter: "versions", action: "s3:ListBucketVersions"},
	{name: "ListMultipartUploads", method: "GET", on: bucket, parameter: "uploads", action: "s3:ListBucketMultipartUploads"},
	{name: "DeleteObjects", method: "POST", on: bucket, parameter: "delete", serve: (*call).deleteObjects},
	{name: "GetBucketNotificationConfiguration", method: "GET", on: bucket, parameter: "notification", action: "s3:GetBucketNotification", serve: (*call).getNotification},
	{name: "PutBucketNotificationConfiguration", method: "PUT", on: bucket, parameter: "notification", action: "s3:PutBucketNotification", changes: true, serve: (*call).putNotification},
	{name: "GetBucketLocation", method: "GET", on: bucket, parameter: "location", action: "s3:GetBucketLocation"},
	{name: "GetBucketVersioning", method: "GET", on: bucket, parameter: "versioning", action: "s3:GetBucketVersioning"},
	{name: "PutBucketVersioning", method: "PUT", on: bucket, parameter: "versioning", action: "s3:PutBucketVersioning", changes: true},
	{name: "GetBucketTagging", method: "GET", on: bucket, parameter: "tagging", action: "s3:GetBucketTagging"},
	{name: "PutBucketTagging", method: "PUT", on: bucket, parameter: "tagging", action: "s3:PutBucketTagging", changes: true},
	{name: "DeleteBucketTagging", method: "DELETE", on: bucket, parameter: "tagging", action: "s3:PutBucketTagging", changes: true},
	{name: "GetBucketOwnershipControls", method: "GET", on: bucket, parameter: "ownershipControls", action: "s3:GetBucketOwnershipControls"},
	{name: "PutBucketOwnershipControls", method: "PUT", on: bucket, parameter: "ownershipControls", action: "s3:PutBucketOwnershipControls", changes: true},
	{name: "DeleteBucketOwnershipControls", method: "DELETE", on: bucket, parameter: "ownershipControls", action: "s3:PutBucketOwnershipControls", changes: true},
	{name: "GetObjectLockConfiguration", method: "GET", on: bucket, parameter: "object-lock", action: "s3:GetBucketObjectLockConfiguration"},
	{name: "PutObjectLockConfiguration", method: "PUT", on: bucket, parameter: "object-lock", action: "s3:PutBucketObjectLockConfiguration", changes: true},
	{name: "GetBucketAcl", method: "GET", on: bucket, parameter: "acl", action: "s3:GetBucketAcl"},
	{name: "GetBucketPolicy", method: "GET", on: bucket, parameter: "policy", action: "s3:GetBucketPolicy"},
	{name: "GetBucketCors", method: "GET", on: bucket, parameter: "cors", action: "s3:GetBucketCORS"},

	{name: "GetObject", method: "GET", on: object, action: "s3:GetObject", versioned: "s3:GetObjectVersion"},
	{name: "HeadObject", method: "HEAD", on: object, action: "s3:GetObject", versioned: "s3:GetObjectVersion"},
	{name: "GetObjectAttributes", method: "GET", on: object, parameter: "attributes", action: "s3:GetObjectAttributes", versioned: "s3:GetObjectVersionAttributes"},
	{name: "CopyObject", method: "PUT", on: object, copies: true, action: "s3:PutObject", event: "ObjectCreated:Copy", serve: (*call).copyObject},
	{name: "PutObject", method: "PUT", on: object, action: "s3:PutObject", event: "ObjectCreated:Put"},
	{name: "DeleteObject", method: "DELETE", on: object, action: "s3:DeleteObject", versioned: "s3:DeleteObjectVersion", event: "ObjectRemoved:Delete"},
	{name: "GetObjectTagging", method: "GET", on: object, parameter: "tagging", action: "s3:GetObjectTagging", versioned: "s3:GetObjectVersionTagging"},
	{name: "PutObjectTagging", method: "PUT", on: object, parameter: "tagging", action: "s3:PutObjectTagging", versioned: "s3:PutObjectVersionTagging", event: "ObjectTagging:Put"},
	{name: "DeleteObjectTagging", method: "DELETE", on: object, parameter: "tagging", action: "s3:DeleteObjectTagging", versioned: "s3:DeleteObjectVersionTagging", event: "ObjectTagging:Delete"},
	{name: "GetObjectAcl", method: "GET", on: object, parameter: "acl", action: "s3:GetObjectAcl", versioned: "s3:GetObjectVersionAcl"},
	{name: "GetObjectRetention", method: "GET", on: object, parameter: "retention", action: "s3:GetObjectRetention"},
	{name: "PutObjectRetention", method: "PUT", on: object, parameter: "retention", action: "s3:PutObjectRetention"},
	{name: "GetObjectLegalHold", method: "GET", on: object, parameter: "legal-hold", action: "s3:GetObjectLegalHold"},
	{name: "PutObjectLegalHold", method: "PUT", on: object, parameter: "legal-hold", action: "s3:PutObjectLegalHold"},

	{name: "CreateMultipartUpload", method: "POST", on: object, parameter: "uploads", action: "s3:PutObject"},
	{name: "UploadPartCopy", method: "PUT", on: object, parameter: "uploadId", copies: true, action: "s3:PutObject", serve: (*call).copyObject},
	{name: "UploadPart", method: "PUT", on: object, parameter: "uploadId", action: "s3:PutObject"},
	{name: "CompleteMultipartUpload", method: "POST", on: object, parameter: "uploadId", action: "s3:PutObject", event: "ObjectCreated:CompleteMultipartUpload"},
	{name: "AbortMultipartUpload", method: "DELETE", on: object, parameter: "uploadId", action: "s3:AbortMultipartUpload"},
	{name: "ListParts", method: "GET", on: object, parameter: "uploadId", action: "s3:ListMultipartUploadParts"},
}

// telling are the parameters of a query that tell S3's operations from each other. A
// request has one of them at most: it must not be one operation to Kiln, and another
// to what serves it.
var telling = strings.Fields(`accelerate acl analytics attributes cors delete encryption intelligent-tiering inventory legal-hold
	lifecycle location logging metadataConfiguration metrics notification object-lock ownershipControls policy policyStatus publicAccessBlock
	replication requestPayment renameObject restore retention select session tagging torrent uploadId uploads versioning versions website`)

// passed are the other parameters that are passed on.
var passed = strings.Fields(`list-type prefix delimiter marker continuation-token start-after max-keys encoding-type fetch-owner
	key-marker version-id-marker upload-id-marker max-uploads max-parts part-number-marker versionId partNumber max-buckets bucket-region
	response-cache-control response-content-disposition response-content-encoding response-content-language response-content-type response-expires`)

func operationOf(r *http.Request, hasKey, hasBucket bool) (operation, error) {
	on := service
	switch {
	case hasKey:
		on = object
	case hasBucket:
		on = bucket
	}
	parameter := ""
	q := r.URL.Query()
	for _, p := range telling {
		if !q.Has(p) {
			continue
		}
		if parameter != "" {
			return operation{}, fault(http.StatusBadRequest, "InvalidArgument", "Conflicting query string parameters: "+parameter+", "+p)
		}
		parameter = p
	}
	copies := r.Header.Get("X-Amz-Copy-Source") != ""
	if r.Method == http.MethodPut && on == object && q.Has("partNumber") != (parameter == "uploadId") {
		return operation{}, fault(http.StatusBadRequest, "InvalidArgument", "This operation needs both partNumber and uploadId, or neither.")
	}
	for _, o := range operations {
		if o.method == r.Method && o.on == on && o.parameter == parameter && o.copies == copies {
			return o, nil
		}
	}
	what := r.Method + " of a " + []string{"service", "bucket", "key"}[on]
	if parameter != "" {
		what += " with ?" + parameter
	}
	return operation{}, fault(http.StatusNotImplemented, "NotImplemented", "A header or query you provided implies functionality that is not implemented: "+what+" is not built in Kiln. docs/s3.md lists what is.")
}

// where finds which bucket and key a request is about. Its host names the bucket where
// that is BUCKET.localhost, or BUCKET.s3.localhost with or without a region between.
func where(r *http.Request) (bucket, key string) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	name, local := strings.CutSuffix(strings.ToLower(host), ".localhost")
	if local && name != "s3" && !strings.HasPrefix(name, "s3.") {
		if i := strings.LastIndex(name, ".s3"); i > 0 && (i+3 == len(name) || name[i+3] == '.') {
			name = name[:i]
		}
		return name, path
	}
	bucket, key, _ = strings.Cut(path, "/")
	return bucket, key
}
