// Package scratch makes file systems of a given size for /tmp of sandboxes: on disk,
// not in memory, and gone with their last mount. The drivers that run on Linux use it.
package scratch
