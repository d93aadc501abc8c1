package operator

import (
	"encoding/base64"
	"io"
	"net/http"
	"strconv"

	"kiln/internal/lambda"
)

// code serves a package to whoever has the link that GetFunction made.
func (d *door) code(w http.ResponseWriter, r *http.Request) {
	c, err := d.begin(w, r, "FollowLink", false, nil)
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	sha256, err := base64.RawURLEncoding.DecodeString(r.PathValue("sha256"))
	arn := lambda.FunctionARN{
		Scope:     scope(r),
		Name:      lambda.FunctionName(r.PathValue("function")),
		Qualifier: lambda.Qualifier(r.PathValue("version")),
	}
	if c.resource = arn; err == nil {
		err = d.Access.Authorise(c.caller.Principal, "lambda:GetFunction", arn)
	}
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	f, err := d.Functions.Get(arn)
	if err != nil || f.Code.SHA256 != string(sha256) {
		c.refuse(w, r, lambda.NotFound("The package is no longer the function's. Call GetFunction again for a new link."))
		return
	}
	c.send(w, r, f.Code, string(arn.Name))
}

// layer serves a layer version to whoever has the link that GetLayerVersion made.
func (d *door) layer(w http.ResponseWriter, r *http.Request) {
	c, err := d.begin(w, r, "FollowLink", false, nil)
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	version, err := strconv.ParseInt(r.PathValue("version"), 10, 64)
	if err != nil {
		c.refuse(w, r, lambda.InvalidParameter("%q is not a version of a layer", r.PathValue("version")))
		return
	}
	arn := lambda.LayerVersionARN{LayerARN: lambda.LayerARN{Scope: scope(r), Name: lambda.LayerName(r.PathValue("layer"))}, Version: version}
	c.resource = arn
	var v *lambda.LayerVersion
	if err = d.Access.Authorise(c.caller.Principal, "lambda:GetLayerVersion", arn); err == nil {
		v, err = d.Functions.LayerVersion(c.caller.Principal, arn)
	}
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	c.send(w, r, v.Code, string(arn.Name)+"-"+strconv.FormatInt(version, 10))
}

// scope is where the link's resource is.
func scope(r *http.Request) lambda.Scope {
	return lambda.Scope{Account: lambda.AccountID(r.PathValue("account")), Region: lambda.Region(r.PathValue("region"))}
}

// send answers with a package.
func (c *call) send(w http.ResponseWriter, r *http.Request, code lambda.Code, name string) {
	zip, size, err := c.door.Packages.Zip(r.Context(), code)
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	defer zip.Close()
	h := w.Header()
	h.Set("Content-Type", "application/zip")
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	h.Set("Content-Disposition", `attachment; filename="`+name+`.zip"`)
	if _, err := io.Copy(w, zip); err != nil {
		c.door.Log.Warn("a package was not sent whole", "path", r.URL.Path, "error", err)
	}
}
