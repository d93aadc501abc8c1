package metrics

import (
	"math"
	"time"
)

const (
	// spreadLeast is the end of the first bucket; each further one is a quarter of a
	// doubling wider, so that a quantile is off by a tenth at most. The last ones are
	// above the longest timeout.
	spreadLeast   = 100 * time.Microsecond
	spreadPerStep = 4
	spreadBuckets = 94
)

// spread counts durations finely enough for quantiles.
type spread [spreadBuckets]int64

func (s *spread) add(d time.Duration) {
	i := 0
	if d > spreadLeast {
		i = int(math.Ceil(spreadPerStep * math.Log2(float64(d)/float64(spreadLeast))))
	}
	s[min(i, spreadBuckets-1)]++
}

// DurationCount is how many invocations took up to that long, and longer than the
// DurationCount before says.
type DurationCount struct {
	UpTo  time.Duration
	Count int64
}

// counts lists what is not empty, in order.
func (s *spread) counts() (list []DurationCount) {
	for i, n := range s {
		if n > 0 {
			list = append(list, DurationCount{time.Duration(float64(spreadLeast) * math.Exp2(float64(i)/spreadPerStep)), n})
		}
	}
	return list
}
