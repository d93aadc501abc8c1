package sandbox

import (
	"os"
	"testing"
)

func TestStatusBytes(t *testing.T) {
	got := statusBytes([]byte("Name:\tVmHWM: 1 kB\nVmHWM:\t  9000 kB\nVmRSS:\t 8000 kB\nRssAnon:\t 3000 kB\nRssFile:\t 4000 kB\nRssShmem:\t 1000 kB\n"))
	if want := (status{peak: 9000 << 10, anon: 3000 << 10, file: 4000 << 10, shmem: 1000 << 10}); got != want {
		t.Errorf("got %+v", got)
	}
}

func TestProcessMemory(t *testing.T) {
	one := ProcessMemory([]int{os.Getpid()})
	if one.CurrentBytes <= 0 || one.PeakBytes < one.CurrentBytes {
		t.Errorf("this process: %+v", one)
	}
	if gone := ProcessMemory([]int{1 << 30}); gone != (Usage{}) {
		t.Errorf("a process that is gone: %+v", gone)
	}
}
