package lambda

import "time"

// AWS's quotas, in bytes unless they say otherwise.
// https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
const (
	// MaxRequestPayload bounds the event of a synchronous invocation.
	MaxRequestPayload = 6 << 20
	// MaxEventPayload bounds the event of an asynchronous invocation.
	MaxEventPayload = 1 << 20
	// MaxResponsePayload bounds a buffered answer; AWS allows 100 bytes over 6 MiB.
	MaxResponsePayload = 6<<20 + 100
	// MaxStreamedResponse bounds a streamed answer.
	MaxStreamedResponse = 200 << 20
	// MaxClientContext bounds the base64 form of a ClientContext.
	MaxClientContext = 3583
	// MaxDeployRequest bounds a request that carries a package: 50 MiB in base64, and room.
	MaxDeployRequest = 70_167_211
	// MaxZipped bounds a deployment package sent inline.
	MaxZipped = 50 << 20
	// DefaultCodeStorage is what the packages of an account may be in a region.
	DefaultCodeStorage = 75 << 30
	// MaxUnzipped bounds the code and its layers, unpacked.
	MaxUnzipped = 250 << 20
	// MaxEnvironment bounds the compact JSON form of a function's variables.
	MaxEnvironment = 4096
	// MaxLayers bounds the layers of one function.
	MaxLayers = 5
	// MaxPolicy bounds the JSON form of a resource-based policy.
	MaxPolicy = 20 << 10
	// MaxTags bounds the tags of one resource.
	MaxTags = 50
	// maxTagKey and maxTagValue bound a tag, in characters.
	maxTagKey, maxTagValue = 128, 256
	// MaxTailLog bounds X-Amz-Log-Result before base64.
	MaxTailLog = 4096
	// MaxFunctionName bounds a function's bare name, in characters.
	MaxFunctionName = 64
	// MaxLogEvent bounds one log event.
	MaxLogEvent = 1 << 20
)

const (
	// DefaultTimeout is a function's timeout when none was given.
	DefaultTimeout = 3 * time.Second
	// MaxTimeout is the longest timeout of a function.
	MaxTimeout = 900 * time.Second
	// ProvisionedInitTimeout bounds the init phase with provisioned concurrency, unless the function's timeout is longer.
	ProvisionedInitTimeout = 130 * time.Second
	// InitTimeout bounds the init phase; init beyond it is run again within the first invocation.
	InitTimeout = 10 * time.Second
)

const (
	// DefaultMemory is a function's memory when none was given, in MB (MiB by measure).
	DefaultMemory = 128
	// MinMemory and MaxMemory bound it.
	MinMemory = 128
	// MaxMemory is 10 GB.
	MaxMemory = 10240
	// MemoryPerCPU is the memory that buys one processor's time, in MB.
	MemoryPerCPU = 1769
	// DefaultEphemeralStorage is the size of /tmp when none was given, in MB.
	DefaultEphemeralStorage = 512
	// MinUnreserved is what reserving leaves of an account's concurrent executions.
	MinUnreserved = 100
	// DefaultConcurrency is an account's concurrent executions per region.
	DefaultConcurrency = 1000
)
