package async

import (
	"time"

	"kiln/internal/invoke/destination"
)

const (
	// DefaultRetries and DefaultAge are what a function has that says nothing.
	DefaultRetries = 2
	// DefaultAge is how old an event gets, at most, before its last attempt.
	DefaultAge = 6 * time.Hour
	// DefaultRetryDelay is from a function error to the next attempt; each further one
	// waits twice as long.
	DefaultRetryDelay = time.Minute
	// minPutOff and maxPutOff bound the wait of an event that could not run, or of an
	// outcome that could not be sent; it doubles with each time.
	minPutOff = time.Second
	maxPutOff = 5 * time.Minute
)

// attempt is what came of trying to run an event once.
type attempt int

const (
	succeeded attempt = iota
	failed            // the function's code ran, and failed
	notRun            // it was throttled, or Kiln failed
	looping           // it would go on with a loop
	forbidden         // the function has reserved no concurrency at all
)

// policy is what a function's owner wants of retries.
type policy struct {
	retries int
	age     time.Duration
	delay   time.Duration
}

// next says what follows an attempt with an event of that age, whose counts include the
// attempt: its end, or another attempt after a while.
//
//	                    ┌──── not run: wait 1 s, 2 s … 5 min ────┐
//	accepted ─▶ attempt ┼──── failed: wait 1 min, 2 min ─────────┴▶ attempt …
//	                    ├──── succeeded ─▶ Success
//	                    ├──── failed, and no retry is left ─▶ RetriesExhausted
//	                    ├──── would be too old by then ─▶ EventAgeExceeded
//	                    └──── looping, forbidden ─▶ RecursiveInvocation, ZeroReservedConcurrency
func (p policy) next(invoked, putOff int, age time.Duration, a attempt) (end destination.Condition, wait time.Duration) {
	switch a {
	case succeeded:
		return destination.Success, 0
	case looping:
		return destination.RecursiveInvocation, 0
	case forbidden:
		return destination.ZeroReservedConcurrency, 0
	case failed:
		if invoked > p.retries {
			return destination.RetriesExhausted, 0
		}
		wait = p.delay << (invoked - 1)
	case notRun:
		wait = backOff(putOff)
	}
	// An attempt that could not begin in time is not waited for.
	if age+wait > p.age {
		return destination.EventAgeExceeded, 0
	}
	return "", wait
}

// backOff is how long to wait after the nth time in a row that something could not be done.
func backOff(n int) time.Duration {
	return min(minPutOff<<min(max(n-1, 0), 16), maxPutOff)
}
