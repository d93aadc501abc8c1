// Package crash holds what Kiln keeps of its promises when it dies, is told to
// stop, or finds a data directory of an earlier version: tests with real daemons,
// kill -9 and SIGTERM. KILN_SOAK sets how many rounds of killing there are.
package crash
