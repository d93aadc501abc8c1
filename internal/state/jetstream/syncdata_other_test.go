//go:build !linux

package jetstream_test

import "os"

func syncData(f *os.File) error { return f.Sync() }
