package lambda

import (
	"regexp"
	"strconv"
	"time"
)

// LayerName is the bare name of a layer.
type LayerName string

// LayerARN is the full name of a layer.
type LayerARN struct {
	Scope
	Name LayerName
}

func (a LayerARN) String() string {
	return "arn:aws:lambda:" + string(a.Region) + ":" + string(a.Account) + ":layer:" + string(a.Name)
}

// LayerVersionARN is the full name of one version of a layer.
type LayerVersionARN struct {
	LayerARN
	Version int64 // from 1
}

func (a LayerVersionARN) String() string {
	return a.LayerARN.String() + ":" + strconv.FormatInt(a.Version, 10)
}

// layerReference has AWS's own pattern for LayerName, with the parts named.
var layerReference = regexp.MustCompile(`^(?:arn:[a-zA-Z0-9-]+:lambda:(?P<region>[a-zA-Z0-9-]+):(?P<account>\d{12}):layer:)?(?P<name>[a-zA-Z0-9-_]+)$`)

// ParseLayer resolves what a caller gave as LayerName, a name or an ARN, for a
// request made in the scope here. A layer of another region is an AWS error.
func ParseLayer(reference string, here Scope) (LayerARN, error) {
	m := layerReference.FindStringSubmatch(reference)
	if m == nil {
		return LayerARN{}, InvalidParameter("%q is not a layer's name or ARN", reference)
	}
	arn := LayerARN{Scope: here, Name: LayerName(m[3])}
	if m[1] != "" {
		if Region(m[1]) != here.Region {
			return LayerARN{}, NotFound("Layers from '%s' are not reachable in this region ('%s')", m[1], here.Region)
		}
		arn.Account = AccountID(m[2])
	}
	return arn, nil
}

var layerVersionARN = regexp.MustCompile(`^arn:[a-zA-Z0-9-]+:lambda:(?P<region>[a-zA-Z0-9-]+):(?P<account>\d{12}):layer:(?P<name>[a-zA-Z0-9-_]+):(?P<version>[0-9]+)$`)

// ParseLayerVersion parses the ARN of a layer version, of any account and region.
func ParseLayerVersion(s string) (LayerVersionARN, error) {
	m := layerVersionARN.FindStringSubmatch(s)
	if m == nil {
		return LayerVersionARN{}, InvalidParameter("%q is not the ARN of a layer version", s)
	}
	version, err := strconv.ParseInt(m[4], 10, 64)
	if err != nil {
		return LayerVersionARN{}, InvalidParameter("The version of %q is out of range", s)
	}
	return LayerVersionARN{
		LayerARN: LayerARN{Scope: Scope{Account: AccountID(m[2]), Region: Region(m[1])}, Name: LayerName(m[3])},
		Version:  version,
	}, nil
}

// Layer is a layer version as a function has it. It outlives the version.
type Layer struct {
	ARN  LayerVersionARN
	Code Code
}

// LayerVersion is one version of a layer as the registry keeps it. It is
// immutable: a change of its policy makes a new one.
type LayerVersion struct {
	Layer
	Description   string
	License       string
	Runtimes      []RuntimeID
	Architectures []Architecture
	Created       time.Time
	Policy        Policy
}
