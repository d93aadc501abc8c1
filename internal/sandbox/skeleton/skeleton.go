// Package skeleton makes the root file system that sandboxes of this machine's own
// programs have: the host's folders of programs read-only, an /etc without secrets, a
// minimal /dev, and the users of a sandbox. The drivers that run on Linux mount it.
package skeleton
