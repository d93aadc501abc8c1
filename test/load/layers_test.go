package load

import (
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"kiln/test/kiln"
)

// A layer takes the memory of its request while it is published, and no longer.
func TestMemoryAfterLayers(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t)
	before := memory(t, d, "VmRSS")
	const size = 32 << 20
	content := make([]byte, size) // random, so that the zip is as large
	_, _ = rand.Read(content)     // never fails
	for i := range 2 {
		_, err := d.Client().PublishLayerVersion(t.Context(), &lambda.PublishLayerVersionInput{
			LayerName: aws.String(fmt.Sprint("large-", i)), Content: &types.LayerVersionContentInput{ZipFile: zipped(entry{"file", string(content), 0o644})},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if peak := peakMemory(t, d); peak < before+size {
		t.Errorf("the peak of %d bytes, %d before, does not show the layers: this test looks at nothing", peak, before)
	}
	kiln.Await(t, "the memory of published layers", func() bool { return memory(t, d, "VmRSS") < before+size })
}
