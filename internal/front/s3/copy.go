package s3

import (
	"net/http"
	"net/url"
	"strings"
)

// copyObject has an object copied, or a part of one, which the caller must be allowed to read.
func (c *call) copyObject() error {
	const header = "X-Amz-Copy-Source"
	path, version, _ := strings.Cut(c.r.Header.Get(header), "?")
	path, err := url.PathUnescape(strings.TrimPrefix(path, "/"))
	from, key, _ := strings.Cut(path, "/")
	if err != nil || from == "" || key == "" || unusable(key) {
		return fault(http.StatusBadRequest, "InvalidArgument", "Copy Source must mention the source bucket and key: sourcebucket/sourcekey")
	}
	source, action := "/"+escape(path), "s3:GetObject"
	if version != "" {
		q, err := url.ParseQuery(version)
		if err != nil || len(q) != 1 || q.Get("versionId") == "" {
			return fault(http.StatusBadRequest, "InvalidArgument", "Unsupported copy source parameter.")
		}
		source, action = source+"?"+q.Encode(), "s3:GetObjectVersion"
	}
	if err := c.may(action, arn{from + "/" + key, c.scope().Account}); err != nil {
		return err
	}
	if region, found := c.door.Objects.Region(c.scope(), from); !found || region != c.scope().Region {
		return noBucket()
	}
	answer, err := c.do(func(out *http.Request) {
		for name, values := range c.r.Header {
			if strings.HasPrefix(name, header+"-If-") || name == header+"-Range" {
				out.Header[name] = values
			}
		}
		out.Header.Set(header, source)
	})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return c.relay(answer)
}
