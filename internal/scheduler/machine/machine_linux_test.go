package machine

import (
	"os"
	"path/filepath"
	"testing"
)

const meminfo = "MemTotal:       16000000 kB\nMemFree:          500000 kB\nMemAvailable:    8000000 kB\n"

// TestRead reads machines made of files: only there can every kind of group be had.
func TestRead(t *testing.T) {
	t.Parallel()
	whole := Memory{Total: 16000000 << 10, Available: 8000000 << 10}
	for name, c := range map[string]struct {
		files map[string]string
		want  Memory
	}{
		"nothing to read":   {nil, Unknown},
		"half of a meminfo": {map[string]string{"proc/meminfo": "MemTotal: 1 kB\n"}, Unknown},
		"not a number":      {map[string]string{"proc/meminfo": "MemTotal: 1 kB\nMemAvailable: all of it\n"}, Unknown},
		"no group":          {map[string]string{"proc/meminfo": meminfo}, whole},
		"stalled": {map[string]string{
			"proc/meminfo":         meminfo,
			"proc/pressure/memory": "some avg10=40.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=12.50 avg60=0.00 avg300=0.00 total=1\n",
		}, Memory{whole.Total, whole.Available, 0.125}},
		"version 2, limited above its own group": {map[string]string{
			"proc/meminfo":                                         meminfo,
			"proc/self/cgroup":                                     "0::/kiln.slice/kiln.service\n",
			"sys/fs/cgroup/kiln.slice/memory.max":                  "1000000000\n",
			"sys/fs/cgroup/kiln.slice/memory.current":              "900000000\n",
			"sys/fs/cgroup/kiln.slice/memory.stat":                 "anon 1\ninactive_file 200000000\n",
			"sys/fs/cgroup/kiln.slice/memory.pressure":             "full avg10=50.00 avg60=0.00 avg300=0.00 total=1\n",
			"sys/fs/cgroup/kiln.slice/kiln.service/memory.max":     "max\n",
			"sys/fs/cgroup/kiln.slice/kiln.service/memory.current": "1\n",
		}, Memory{1000000000, 300000000, 0.5}},
		"version 1, in a container that sees its group as the root": {map[string]string{
			"proc/meminfo":     meminfo,
			"proc/self/cgroup": "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/docker/1\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000000\n",
			"sys/fs/cgroup/memory/memory.usage_in_bytes": "2100000000\n",
			"sys/fs/cgroup/memory/memory.stat":           "cache 5\n",
		}, Memory{2000000000, 0, 0}},
		"version 1 without a limit": {map[string]string{
			"proc/meminfo":     meminfo,
			"proc/self/cgroup": "4:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
			"sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
		}, whole},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for path, text := range c.files {
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got := read(root); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
	if m := Read(); m == Unknown || m.Available <= 0 || m.Available > m.Total || m.Stalled < 0 || m.Stalled > 1 {
		t.Errorf("this machine: %+v", m)
	}
}
